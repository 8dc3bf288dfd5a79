#include "litert_profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct LrProfiler LrProfiler;

/* An event. The memory in use before and after it is three numbers each; of the type the library writes the lower half only. */
typedef struct {
    const char *tag;
    int32_t type, unused;
    uint64_t start_us, elapsed_us, memory[6];
    int64_t index, more;
    uint64_t source;
} LrEvent;

_Static_assert(sizeof(LrEvent) == 104 || sizeof(void *) != 8, "the struct as LiteRT lays it out");

enum { DEFAULT = 1, OPERATOR = 2, DELEGATE_OPERATOR = 4, PROFILED_DELEGATE_OPERATOR = 8 };

#define FUNCTIONS(X)                                           \
    X(int, CompiledModelGetProfiler, (void *, LrProfiler **))  \
    X(int, StartProfiler, (LrProfiler *))                      \
    X(int, StopProfiler, (LrProfiler *))                       \
    X(int, ResetProfiler, (LrProfiler *))                      \
    X(int, GetNumProfilerEvents, (LrProfiler *, int *))        \
    X(int, GetProfilerEvents, (LrProfiler *, int, LrEvent *))

#define MEMBER(returned, name, arguments) returned(*name) arguments;
#define TAKE(returned, name, arguments) lr.name = (returned(*) arguments)library_symbol(libraries, "LiteRt" #name);
#define IS_THERE(returned, name, arguments) &&lr.name != NULL

static struct {
    FUNCTIONS(MEMBER)
} lr;

void litert_profile_take(const Libraries *libraries) {
    FUNCTIONS(TAKE)
}

/* The events of one inference: its own, and after it those of its operators. False if it is not among them. */
static bool add_inference(Executed *executed, const LrEvent *events, size_t count) {
    const LrEvent *inference = NULL;
    int64_t delegates = 0, last_index = -1;
    bool in_delegate = false;
    for (const LrEvent *event = events; event < events + count; event++) {
        const char *tag = event->tag ? event->tag : "";
        if (inference == NULL && event->type == DEFAULT && strcmp(tag, "Invoke") == 0) inference = event;
        if (event->type == OPERATOR) {
            executed_ran(executed, tag, tag, "interpreter", event->index, (int64_t)event->elapsed_us);
            in_delegate = false;
        } else if (event->type == DELEGATE_OPERATOR || event->type == PROFILED_DELEGATE_OPERATOR) {
            char partition[40];
            if (!in_delegate || event->index <= last_index) delegates++;
            snprintf(partition, sizeof partition, "delegate %lld", (long long)delegates - 1);
            executed_ran(executed, tag, tag, partition, event->index, (int64_t)event->elapsed_us);
            in_delegate = true;
            last_index = event->index;
        }
    }
    if (inference != NULL) executed_inference(executed, (int64_t)inference->elapsed_us);
    return inference != NULL;
}

/* The events since the profiler was reset, for the caller to free; NULL and the reason if there are none. There is twice the room for
   them, to find out whether this library's events are larger than they are here. */
static LrEvent *take_events(LrProfiler *profiler, size_t *count, Reason *reason) {
    static const unsigned char untouched[sizeof(uint64_t)] = {0xA5, 0xA5, 0xA5, 0xA5, 0xA5, 0xA5, 0xA5, 0xA5};
    int found = 0;
    if (lr.GetNumProfilerEvents(profiler, &found) != 0 || found <= 0) return fail(reason, "the profiler of LiteRT recorded nothing"), NULL;
    *count = (size_t)found;
    LrEvent *events = allocate(2 * *count, sizeof *events);
    memset(events, untouched[0], 2 * *count * sizeof *events);
    bool fine = lr.GetProfilerEvents(profiler, found, events) == 0 || fail(reason, "the profiler of LiteRT tells nothing");
    const unsigned char *end = (const unsigned char *)(events + *count), *last = end - sizeof untouched;
    if (fine && (memcmp(last, untouched, sizeof untouched) == 0 || memcmp(end, untouched, sizeof untouched) != 0)) {
        fine = fail(reason, "the events of this LiteRT's profiler are of another size than is known here");
    }
    if (fine) return events;
    free(events);
    return NULL;
}

/* Run the model once under the profiler, whose buffer is emptied again: it overwrites what does not fit into it. False if the run fails,
   for the first reason; for the other one nothing is known of the inference. */
static bool profile_once(Model *model, LrProfiler *profiler, Executed *executed, Reason *reason, Reason *unprofiled) {
    size_t count;
    bool started = lr.ResetProfiler(profiler) == 0 && lr.StartProfiler(profiler) == 0;
    if (!model->runtime->run(model, reason)) return false;
    if (!started || lr.StopProfiler(profiler) != 0) {
        fail(unprofiled, "the profiler of LiteRT cannot be started and stopped");
        return true;
    }
    LrEvent *events = take_events(profiler, &count, unprofiled);
    if (events != NULL && !add_inference(executed, events, count)) fail(unprofiled, "the profiler of LiteRT recorded no inference");
    free(events);
    return true;
}

bool litert_profile(Model *model, void *compiled, Executed *executed, Reason *reason) {
    LrProfiler *profiler = NULL;
    Reason unprofiled = {""};
    bool known = sizeof(void *) == 8 FUNCTIONS(IS_THERE);
    if (!known) fail(&unprofiled, "this version of LiteRT offers no profiler");
    else if (lr.CompiledModelGetProfiler(compiled, &profiler) != 0 || profiler == NULL) fail(&unprofiled, "LiteRT gives no profiler to this model");
    for (size_t i = 0; i < WARM_UP_RUNS; i++) {
        if (!model->runtime->run(model, reason)) return false;
    }
    while (!unprofiled.text[0] && executed->inferences < executed->wanted) {
        if (!profile_once(model, profiler, executed, reason, &unprofiled)) return false;
    }
    if (unprofiled.text[0]) executed_has_no_operators(executed, &unprofiled);
    return true;
}
