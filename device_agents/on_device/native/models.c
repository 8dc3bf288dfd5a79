#include "models.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* a session needs its weights, a packed copy of them and its activations: about three times the file */
enum { MEMORY_PER_FILE_BYTE = 3 };

bool copies_run(Copies *copies, Reason *reason) {
    Model *model = copies->copies[copies->next++];
    if (copies->next == copies->count) copies->next = 0;
    return model->runtime->run(model, reason);
}

/* ------------------------------------------------------------------------------------------------------------ opening */

/* Whether all outputs are finite. False and the reason if one cannot be looked at. */
static bool look_at_outputs(Model *model, bool *finite, Reason *reason) {
    Tensor tensor;
    *finite = true;
    for (size_t i = 0; *finite && i < model->outputs; i++) {
        if (!model->runtime->output(model, i, &tensor, reason)) return false;
        *finite = tensor_is_finite(&tensor);
    }
    return true;
}

/* `not_finite`: whether its outputs are not, where that is no failure. Of outputs that cannot be looked at nothing is known. */
static Model *open_once(const Models *models, const JobModel *wanted, bool *not_finite, Reason *reason) {
    const Runtime *runtime = models->runtime;
    const Job *job = models->job;
    Opening opening = {.path = wanted->path, .seed = job->seed, .as_it_is = wanted->as_it_is,
                       .profile = job->profiled && runtime->profile ? job->profile : NULL};
    Model *model = runtime->open(runtime, &opening, reason);
    bool finite = true;
    *not_finite = false;
    if (model == NULL || job->profiled) return model;
    bool seen = look_at_outputs(model, &finite, wanted->finite ? reason : NULL);
    *not_finite = seen && !finite;
    if (!wanted->finite || (seen && finite)) return model;
    if (seen) fail(reason, "its outputs are not finite");
    runtime->close(model);
    return NULL;
}

static void close_copies(Copies *copies) {
    for (size_t i = 0; i < copies->count; i++) copies->copies[i]->runtime->close(copies->copies[i]);
    free(copies->copies);
}

static bool open_copies(Copies *copies, const Models *models, const JobModel *wanted, size_t count, Reason *reason) {
    *copies = (Copies){.copies = allocate(count, sizeof(Model *))};
    while (copies->count < count) {
        Model *model = open_once(models, wanted, &copies->not_finite, reason);
        if (model == NULL) {
            close_copies(copies);
            return false;
        }
        copies->copies[copies->count++] = model;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- bounds */

static void close_oldest(Models *models) {
    close_copies(&models->open[0].copies);
    models->count--;
    memmove(models->open, models->open + 1, models->count * sizeof *models->open);
}

/* Whether so many copies more, each of so many bytes, would exceed a bound. */
static bool is_full(const Models *models, size_t count, int64_t bytes) {
    int64_t most = models->runtime->many_open ? models->job->max_open : models->job->max_open_pools;
    double total = (double)count * (double)bytes; /* which may be more than any whole number */
    for (size_t i = 0; i < models->count; i++) {
        count += models->open[i].copies.count;
        total += (double)models->open[i].copies.count * (double)models->open[i].bytes;
    }
    return (int64_t)count > most || total > (double)models->job->memory_bytes;
}

static Copies *open_model(Models *models, const JobModel *wanted, Reason *reason) {
    struct stat facts;
    if (stat(wanted->path, &facts) != 0) return fail(reason, "%s: %s", wanted->path, strerror(errno)), NULL;
    size_t count = job_is_for_latency(models->job) ? (size_t)wanted->copies : 1;
    struct OpenModel opened = {.of = wanted, .bytes = (int64_t)facts.st_size * MEMORY_PER_FILE_BYTE};
    while (models->count > 0 && is_full(models, count, opened.bytes)) close_oldest(models);
    if (!open_copies(&opened.copies, models, wanted, count, reason)) return NULL;
    models->open = reallocate(models->open, models->count + 1, sizeof *models->open);
    models->open[models->count++] = opened;
    return &models->open[models->count - 1].copies;
}

Copies *models_get(Models *models, const JobModel *wanted, Reason *reason) {
    for (size_t i = 0; i < models->count; i++) {
        if (models->open[i].of != wanted) continue;
        struct OpenModel found = models->open[i];
        memmove(models->open + i, models->open + i + 1, (models->count - i - 1) * sizeof found);
        models->open[models->count - 1] = found;
        return &models->open[models->count - 1].copies;
    }
    return open_model(models, wanted, reason);
}

/* ------------------------------------------------------------------------------------------------------- what is executed */

bool models_tell_executed(Text *text, const Models *models, const JobModel *wanted, Reason *reason) {
    bool not_finite;
    Model *model = open_once(models, wanted, &not_finite, reason); /* anew each time, for a profile cannot be begun again */
    if (model == NULL) return false;
    Executed executed = {.wanted = (size_t)models->job->profiled};
    bool fine = true;
    if (models->runtime->profile != NULL) fine = models->runtime->profile(model, &executed, reason);
    else fail(&executed.reason, "this runtime tells the runner nothing of what it executes");
    models->runtime->close(model); /* before anything is told, so that none of its files are left when the host hears of it */
    if (fine) tell_executed(text, &executed);
    executed_free(&executed);
    return fine;
}
