/* Models kept open within bounds on their number and memory. */
#ifndef NATIVE_MODELS_H
#define NATIVE_MODELS_H

#include "job.h"
#include "runtime.h"

/* Least recently used first. */
typedef struct {
    const Runtime *runtime;
    const Job *job;
    struct OpenModel {
        const JobModel *of;
        Model *model;
        int64_t bytes;
    } *open;
    size_t count;
} Models;

/* The open model; opened and its outputs checked if it is not open yet. NULL and the reason if it cannot be run. */
Model *models_get(Models *models, const JobModel *wanted, Reason *reason);

#endif
