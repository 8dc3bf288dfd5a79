#include "executed.h"

#include <stdlib.h>
#include <string.h>

#include "json.h"

static bool is_named(const Operator *operator, const char *name, const char *op, const char *partition, int64_t index) {
    return operator->index == index && strcmp(operator->name, name) == 0 && strcmp(operator->op, op) == 0 &&
           strcmp(operator->partition, partition) == 0;
}

Operator *executed_ran(Executed *executed, const char *name, const char *op, const char *partition, int64_t index, int64_t duration_us) {
    size_t place = executed->count;
    for (size_t tried = 0; tried < executed->count && place == executed->count; tried++) {
        /* every inference has the same order, so that the first one that is tried is nearly always the right one */
        size_t candidate = (executed->next + tried) % executed->count;
        if (is_named(&executed->operators[candidate], name, op, partition, index)) place = candidate;
    }
    if (place == executed->count) {
        executed->operators = reallocate(executed->operators, ++executed->count, sizeof *executed->operators);
        executed->operators[place] = (Operator){.name = copy_text(name), .op = copy_text(op), .partition = copy_text(partition),
                                                .index = index, .samples_us = allocate(executed->wanted, sizeof(int64_t))};
    }
    Operator *operator = &executed->operators[place];
    if (executed->inferences < executed->wanted) operator->samples_us[executed->inferences] += duration_us;
    executed->next = place + 1;
    return operator;
}

void executed_inference(Executed *executed, int64_t duration_us) {
    if (executed->inferences_us == NULL) executed->inferences_us = allocate(executed->wanted, sizeof(int64_t));
    if (executed->inferences < executed->wanted) executed->inferences_us[executed->inferences++] = duration_us;
    executed->next = 0;
}

void executed_lacks(Executed *executed, const Reason *reason) {
    if (executed->reason.text[0] == '\0') executed->reason = *reason;
}

static void free_operators(Executed *executed) {
    for (size_t i = 0; i < executed->count; i++) {
        Operator *operator = &executed->operators[i];
        free(operator->name);
        free(operator->op);
        free(operator->partition);
        free(operator->samples_us);
        text_free(&operator->inputs);
        text_free(&operator->outputs);
    }
    free(executed->operators);
    executed->operators = NULL;
    executed->count = executed->inferences = 0;
}

void executed_has_no_operators(Executed *executed, const Reason *reason) {
    free_operators(executed);
    executed_lacks(executed, reason);
}

/* ------------------------------------------------------------------------------------------------------------ telling */

static void tell_numbers(Text *text, const int64_t *numbers, size_t count) {
    text_add(text, "[");
    for (size_t i = 0; i < count; i++) text_add(text, "%s%lld", i ? "," : "", (long long)numbers[i]);
    text_add(text, "]");
}

static void tell_operator(Text *text, const Executed *executed, const Operator *operator) {
    text_add(text, "{\"name\":");
    json_add_string(text, operator->name);
    text_add(text, ",\"op\":");
    json_add_string(text, operator->op);
    text_add(text, ",\"partition\":");
    json_add_string(text, operator->partition);
    text_add(text, ",\"index\":%lld,\"inputs\":%s,\"outputs\":%s,\"samples_us\":", (long long)operator->index,
             operator->inputs.length ? operator->inputs.data : "[]", operator->outputs.length ? operator->outputs.data : "[]");
    tell_numbers(text, operator->samples_us, executed->inferences);
    text_add(text, "}");
}

void tell_executed(Text *text, const Executed *executed) {
    text_add(text, "\"graph\":");
    if (executed->graph == NULL) {
        text_add(text, "null");
    } else {
        text_add(text, "\"");
        text_add_base64(text, executed->graph, executed->graph_bytes);
        text_add(text, "\"");
    }
    text_add(text, ",\"reason\":");
    if (executed->reason.text[0]) json_add_string(text, executed->reason.text);
    else text_add(text, "null");
    text_add(text, ",\"inferences_us\":");
    tell_numbers(text, executed->inferences_us, executed->inferences);
    text_add(text, ",\"operators\":[");
    for (size_t i = 0; i < executed->count; i++) {
        if (i) text_add(text, ",");
        tell_operator(text, executed, &executed->operators[i]);
    }
    text_add(text, "]");
}

void executed_free(Executed *executed) {
    free_operators(executed);
    free(executed->inferences_us);
    free(executed->graph);
    *executed = (Executed){0};
}
