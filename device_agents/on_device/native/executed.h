/* What a runtime executes for a model, as its own profiler tells it (PROTOCOL.md, "The executed graph"). */
#ifndef NATIVE_EXECUTED_H
#define NATIVE_EXECUTED_H

#include "base.h"

enum { WARM_UP_RUNS = 3 }; /* before the inferences that are profiled */

typedef struct {
    char *name, *op, *partition;
    int64_t index;
    Text inputs, outputs; /* JSON lists; empty for [] */
    int64_t *samples_us;  /* one for each inference */
} Operator;

/* Begins with `wanted`, everything else empty. */
typedef struct {
    size_t wanted, inferences; /* how many inferences are profiled, and how many of them are complete so far */
    int64_t *inferences_us;
    Operator *operators; /* in the order of execution */
    size_t count, next;  /* next: the operator that is expected to run next */
    char *graph;         /* the bytes of a file; NULL for none */
    size_t graph_bytes;
    Reason reason; /* why graph or operators are missing; empty for none */
} Executed;

/* An operator has run for so long in the current inference. It is added if there is none with these names and this index. */
Operator *executed_ran(Executed *executed, const char *name, const char *op, const char *partition, int64_t index, int64_t duration_us);
/* The current inference is complete and took so long; the next one begins. */
void executed_inference(Executed *executed, int64_t duration_us);
/* Give the reason, unless there is an earlier one. */
void executed_lacks(Executed *executed, const Reason *reason);
/* Leave out operators and inferences, and give the reason. */
void executed_has_no_operators(Executed *executed, const Reason *reason);

/* Append "graph":…,"reason":… and so on, without braces. */
void tell_executed(Text *text, const Executed *executed);
void executed_free(Executed *executed);

#endif
