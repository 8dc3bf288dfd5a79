#include "job.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "json.h"

enum { FORMAT = 8, MOST_THREADS = 4096, MOST_COPIES = 1 << 20, MOST_PROFILED = 1 << 20 };

/* ------------------------------------------------------------------------------------------------------------- fields */

static const Json *need(const Json *object, const char *name) {
    const Json *member = json_member(object, name);
    if (member == NULL) die("the job has no field \"%s\"", name);
    return member;
}

static const Json *need_kind(const Json *object, const char *name, JsonKind kind, const char *what) {
    const Json *member = need(object, name);
    if (member->kind != kind) die("the job's field \"%s\" is not %s", name, what);
    return member;
}

static bool is_whole(const Json *value, int64_t least) {
    return value->kind == JSON_NUMBER && value->whole && value->integer >= least;
}

static int64_t whole(const Json *object, const char *name, int64_t least) {
    const Json *member = need(object, name);
    if (!is_whole(member, least)) die("the job's field \"%s\" is not a whole number of at least %lld", name, (long long)least);
    return member->integer;
}

/* Not negative, and short enough to be written in nanoseconds. */
static double duration(const Json *object, const char *name) {
    const Json *member = need(object, name);
    if (member->kind != JSON_NUMBER || !(member->number >= 0 && member->number <= 1e9)) {
        die("the job's field \"%s\" is not a duration from 0 to 10^9", name);
    }
    return member->number;
}

static char *string(const Json *object, const char *name) {
    return copy_text(need_kind(object, name, JSON_STRING, "a text")->string);
}

static bool boolean(const Json *object, const char *name) {
    return need_kind(object, name, JSON_BOOL, "true or false")->boolean;
}

static const Json *list(const Json *object, const char *name) {
    return need_kind(object, name, JSON_LIST, "a list");
}

static bool is_null(const Json *object, const char *name) {
    return need(object, name)->kind == JSON_NULL;
}

/* -------------------------------------------------------------------------------------------------------------- parts */

static void read_cpus(Job *job, const Json *object) {
    if (is_null(object, "cpus")) return;
    const Json *cpus = list(object, "cpus");
    if (cpus->count == 0) die("the job's field \"cpus\" is an empty list; null means all cores");
    job->cpus = allocate(cpus->count, sizeof *job->cpus);
    for (const Json *cpu = cpus->first; cpu != NULL; cpu = cpu->next) {
        if (!is_whole(cpu, 0)) die("the job's field \"cpus\" holds something that is no core's number");
        job->cpus[job->cpu_count++] = cpu->integer;
    }
}

static void read_libraries(Job *job, const Json *object) {
    if (json_member(object, "libraries") == NULL) return;
    const Json *libraries = list(object, "libraries");
    job->libraries = allocate(libraries->count, sizeof *job->libraries);
    for (const Json *library = libraries->first; library != NULL; library = library->next) {
        if (library->kind != JSON_STRING) die("the job's field \"libraries\" holds something that is no path");
        job->libraries[job->library_count++] = copy_text(library->string);
    }
}

static char *beside(const char *job_path, const char *file) {
    const char *slash = strrchr(job_path, '/');
    if (slash == NULL || file[0] == '/') return copy_text(file);
    return format_text("%.*s/%s", (int)(slash - job_path), job_path, file);
}

/* Models sorted by id, so that a schedule of a million measurements is read quickly. */
static int by_id(const void *first, const void *second) {
    return strcmp(((const JobModel *)first)->id, ((const JobModel *)second)->id);
}

static JobModel *find_model(const Job *job, const char *id) {
    JobModel wanted = {.id = (char *)(uintptr_t)id};
    return job->model_count ? bsearch(&wanted, job->models, job->model_count, sizeof wanted, by_id) : NULL;
}

static void read_models(Job *job, const Json *object, const char *job_path) {
    const Json *models = list(object, "models");
    job->models = allocate(models->count, sizeof *job->models);
    for (const Json *model = models->first; model != NULL; model = model->next) {
        if (model->kind != JSON_OBJECT) die("the job's field \"models\" holds something that is no object");
        char *file = string(model, "file");
        int64_t copies = whole(model, "copies", 1);
        if (copies > MOST_COPIES) die("the job's field \"copies\" is more than %d", MOST_COPIES);
        job->models[job->model_count++] = (JobModel){.id = string(model, "id"), .path = beside(job_path, file),
                                                     .as_it_is = boolean(model, "as_it_is"), .copies = copies,
                                                     .finite = boolean(model, "finite")};
        free(file);
    }
    if (job->model_count) qsort(job->models, job->model_count, sizeof *job->models, by_id);
    for (size_t i = 1; i < job->model_count; i++) {
        if (by_id(&job->models[i - 1], &job->models[i]) == 0) die("the job's field \"models\" names %s twice", job->models[i].id);
    }
}

static void read_round(const Job *job, JobRound *round, const Json *entry) {
    if (entry->kind != JSON_OBJECT) die("the job's field \"schedule\" holds something that is no object");
    const Json *measurements = list(entry, "models");
    round->number = whole(entry, "round", 0);
    round->measurements = allocate(measurements->count, sizeof *round->measurements);
    for (const Json *id = measurements->first; id != NULL; id = id->next) {
        JobModel *model = id->kind == JSON_STRING ? find_model(job, id->string) : NULL;
        if (model == NULL) die("the job's field \"schedule\" names a model that is not among its models");
        round->measurements[round->count++] = (size_t)(model - job->models);
    }
}

static void read_schedule(Job *job, const Json *object) {
    const Json *schedule = list(object, "schedule");
    job->rounds = allocate(schedule->count, sizeof *job->rounds);
    for (const Json *entry = schedule->first; entry != NULL; entry = entry->next) {
        read_round(job, &job->rounds[job->round_count++], entry);
    }
}

static void read_reference(Job *job, const Json *object) {
    if (is_null(object, "reference")) return;
    char *id = string(object, "reference");
    job->reference = find_model(job, id);
    if (job->reference == NULL) die("the job's field \"reference\" names no model of the job");
    free(id);
}

static void read_timing(Job *job, const Json *object) {
    job->measurement_ms = duration(object, "measurement_ms");
    job->warmup_ms = duration(object, "warmup_ms");
    job->sample_ms = duration(object, "sample_ms");
    job->min_samples = whole(object, "min_samples", 1);
    job->min_round_s = duration(object, "min_round_s");
    job->silence_s = duration(object, "silence_s");
    job->reference_ms = duration(object, "reference_ms");
    job->reference_every = whole(object, "reference_every", 1);
    job->acknowledged = boolean(object, "acknowledged");
    job->outputs = whole(object, "outputs", 0);
    job->energy_ms = duration(object, "energy_ms");
    if (!(job->silence_s > 0)) die("the job's field \"silence_s\" leaves a model no time at all");
    job->profiled = whole(object, "profiled", 0);
    if (job->profiled > MOST_PROFILED) die("the job's field \"profiled\" is more than %d", MOST_PROFILED);
    if ((job->outputs != 0) + (job->energy_ms > 0) + (job->profiled != 0) > 1) {
        die("the job's fields \"outputs\", \"energy_ms\" and \"profiled\" exclude each other");
    }
}

static void read_fields(Job *job, const Json *object, const char *job_path) {
    if (whole(object, "format", 0) != FORMAT) die("this runner speaks job \"format\" %d only", FORMAT);
    job->runtime = string(object, "runtime");
    int64_t threads = whole(object, "threads", 1);
    if (threads > MOST_THREADS) die("the job's field \"threads\" is more than %d", MOST_THREADS);
    job->threads = (int)threads;
    job->seed = (uint64_t)whole(object, "seed", 0);
    job->root = string(object, "root");
    job->lease = is_null(object, "lease") ? NULL : string(object, "lease");
    job->memory_bytes = whole(object, "memory_bytes", 1);
    job->max_open = whole(object, "max_open", 1);
    job->max_open_pools = whole(object, "max_open_pools", 1);
    read_cpus(job, object);
    read_libraries(job, object);
    job->profile = beside(job_path, "executed-XXXXXX");
    read_timing(job, object);
    read_models(job, object, job_path);
    read_reference(job, object);
    read_schedule(job, object);
}

bool job_is_for_latency(const Job *job) {
    return job->outputs == 0 && !(job->energy_ms > 0) && job->profiled == 0;
}

Job *job_read(const char *path) {
    Reason reason;
    size_t length;
    char *text = read_whole(path, &length, &reason);
    if (text == NULL) die("%s", reason.text);
    Json *object = json_parse(text, length, &reason);
    free(text);
    if (object == NULL) die("%s is not a job: %s", path, reason.text);
    if (object->kind != JSON_OBJECT) die("%s is not a job: it is no JSON object", path);
    Job *job = allocate(1, sizeof *job);
    read_fields(job, object, path);
    json_free(object);
    return job;
}
