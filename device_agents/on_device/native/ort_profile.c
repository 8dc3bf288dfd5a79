#include "ort_profile.h"

#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "json.h"

static const char ENDING[] = "_kernel_time";

/* The operators that ran since the last inference was complete. */
typedef struct {
    Json **events;
    size_t count, capacity;
} Pending;

static const char *string(const Json *object, const char *name) {
    const Json *member = json_member(object, name);
    return member != NULL && member->kind == JSON_STRING ? member->string : "";
}

/* The profiler writes whole numbers as such, but those among `args` as text. */
static int64_t whole(const Json *object, const char *name) {
    const Json *member = json_member(object, name);
    if (member == NULL) return 0;
    return member->kind == JSON_STRING ? strtoll(member->string, NULL, 10) : member->integer;
}

static bool is_operator(const Json *event) {
    const char *name = string(event, "name");
    size_t length = strlen(name), ending = strlen(ENDING);
    return strcmp(string(event, "cat"), "Node") == 0 && length > ending && strcmp(name + length - ending, ENDING) == 0;
}

static bool is_inference(const Json *event) {
    return strcmp(string(event, "cat"), "Session") == 0 && strcmp(string(event, "name"), "model_run") == 0;
}

static void clear(Pending *pending, size_t left) {
    while (pending->count > left) json_free(pending->events[--pending->count]);
}

/* Takes the event over. What ran inside a control-flow operator was recorded before it, but had not begun before it. */
static void add_pending(Pending *pending, Json *event) {
    const char *op = string(json_member(event, "args"), "op_name");
    if (strcmp(op, "If") == 0 || strcmp(op, "Loop") == 0 || strcmp(op, "Scan") == 0) {
        size_t left = pending->count;
        while (left > 0 && whole(pending->events[left - 1], "ts") >= whole(event, "ts")) left--;
        clear(pending, left);
    }
    if (pending->count == pending->capacity) {
        pending->capacity = 2 * pending->capacity + 64;
        pending->events = reallocate(pending->events, pending->capacity, sizeof(Json *));
    }
    pending->events[pending->count++] = event;
}

static void add_shapes(Text *text, const Json *args, const char *name) {
    const Json *shapes = json_member(args, name);
    if (text->length == 0 && shapes != NULL && shapes->kind == JSON_LIST) json_add(text, shapes);
}

static void add_operator(Executed *executed, const Json *event) {
    const Json *args = json_member(event, "args");
    char *name = copy_text(string(event, "name"));
    name[strlen(name) - strlen(ENDING)] = '\0';
    Operator *operator = executed_ran(executed, name, string(args, "op_name"), string(args, "provider"), whole(args, "node_index"),
                                      whole(event, "dur"));
    add_shapes(&operator->inputs, args, "input_type_shape");
    add_shapes(&operator->outputs, args, "output_type_shape");
    free(name);
}

/* One line; false and the reason if it is no JSON. The list's brackets are lines of their own. */
static bool read_event(const char *line, size_t length, size_t *skipped, Pending *pending, Executed *executed, Reason *reason) {
    while (length > 0 && strchr(", \t\r]", line[length - 1]) != NULL) length--;
    if (length == 0 || (length == 1 && line[0] == '[')) return true;
    Json *event = json_parse(line, length, reason);
    if (event == NULL) return false;
    if (is_operator(event)) {
        add_pending(pending, event);
        return true;
    }
    if (is_inference(event)) {
        for (size_t i = 0; i < pending->count && *skipped == 0; i++) add_operator(executed, pending->events[i]);
        if (*skipped == 0) executed_inference(executed, whole(event, "dur"));
        else --*skipped;
        clear(pending, 0);
    }
    json_free(event);
    return true;
}

bool ort_profile_read(const char *path, size_t skipped, Executed *executed, Reason *reason) {
    size_t length;
    char *text = read_whole(path, &length, reason);
    if (text == NULL) return false;
    Reason why = {""};
    Pending pending = {0};
    bool fine = true;
    for (const char *line = text, *end; fine && *line && executed->inferences < executed->wanted; line = *end ? end + 1 : end) {
        end = line + strcspn(line, "\n");
        fine = read_event(line, (size_t)(end - line), &skipped, &pending, executed, &why);
    }
    clear(&pending, 0);
    free(pending.events);
    free(text);
    if (!fine) return fail(reason, "the profile of ONNX Runtime cannot be read: %s", why.text);
    return executed->inferences == executed->wanted || fail(reason, "the profile of ONNX Runtime ends after %zu of %zu inferences",
                                                            executed->inferences, executed->wanted);
}
