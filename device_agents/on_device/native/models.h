/* Models kept open within bounds on their number and memory. */
#ifndef NATIVE_MODELS_H
#define NATIVE_MODELS_H

#include "job.h"
#include "runtime.h"

/* A model that is open once or several times; runs go to its copies in turn. */
typedef struct {
    Model **copies;
    size_t count, next;
    bool not_finite; /* its outputs were not when it was opened, which is no failure of this model */
} Copies;

bool copies_run(Copies *copies, Reason *reason);

/* Least recently used first. */
typedef struct {
    const Runtime *runtime;
    const Job *job;
    struct OpenModel {
        const JobModel *of;
        Copies copies;
        int64_t bytes; /* of one copy */
    } *open;
    size_t count;
} Models;

/* The model, opened and its outputs checked if it is not open yet: as often as the job says, but once for a job that is not for latency.
   Good until the next call. NULL and the reason if it cannot be run. */
Copies *models_get(Models *models, const JobModel *wanted, Reason *reason);
/* Open a model for the runtime's profiler and append what is executed, without braces. False and the reason if it cannot be run. */
bool models_tell_executed(Text *text, const Models *models, const JobModel *wanted, Reason *reason);

#endif
