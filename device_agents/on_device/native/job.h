/* The job: what to measure, how, and in which order. */
#ifndef NATIVE_JOB_H
#define NATIVE_JOB_H

#include "base.h"

typedef struct {
    char *id, *path;
    bool as_it_is; /* the runtime must not optimise it */
    int64_t copies;
    bool finite;     /* outputs that are not finite are a failure */
    bool not_finite; /* its outputs are not, which is no failure */
    bool told;       /* that they are not */
    bool left_out;   /* it failed */
} JobModel;

typedef struct {
    int64_t number;
    size_t count;
    size_t *measurements; /* places in the job's models */
} JobRound;

typedef struct {
    char *runtime, *root, *lease; /* lease: NULL for none */
    int threads;
    uint64_t seed;
    int64_t *cpus;
    size_t cpu_count; /* 0: wherever it was put */
    char **libraries;
    size_t library_count;
    double measurement_ms, warmup_ms, sample_ms, min_round_s, silence_s, reference_ms, energy_ms;
    char *profile; /* the template of a folder beside the job */
    bool acknowledged; /* the host acknowledges each result */
    int64_t min_samples, memory_bytes, max_open, max_open_pools, reference_every, outputs, profiled;
    JobModel *reference; /* NULL for none */
    JobModel *models;
    size_t model_count;
    JobRound *rounds;
    size_t round_count;
} Job;

/* Whether it measures latency, and not outputs, energy, or what is executed. */
bool job_is_for_latency(const Job *job);

/* Read and check a job file; ends the runner with a message that names the field if it makes no sense. */
Job *job_read(const char *path);

#endif
