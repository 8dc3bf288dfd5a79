#include "models.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* a session needs its weights, a packed copy of them and its activations: about three times the file */
enum { MEMORY_PER_FILE_BYTE = 3 };

static bool outputs_are_finite(Model *model, Reason *reason) {
    Tensor tensor;
    for (size_t i = 0; i < model->outputs; i++) {
        if (!model->runtime->output(model, i, &tensor, reason)) return false;
        if (!tensor_is_finite(&tensor)) return fail(reason, "its outputs are not finite");
    }
    return true;
}

static void close_oldest(Models *models) {
    models->runtime->close(models->open[0].model);
    models->count--;
    memmove(models->open, models->open + 1, models->count * sizeof *models->open);
}

static bool is_full(const Models *models, int64_t bytes) {
    int64_t most = models->runtime->many_open ? models->job->max_open : models->job->max_open_pools;
    for (size_t i = 0; i < models->count; i++) bytes += models->open[i].bytes;
    return (int64_t)models->count >= most || bytes > models->job->memory_bytes;
}

static Model *open_model(Models *models, const JobModel *wanted, Reason *reason) {
    struct stat facts;
    if (stat(wanted->path, &facts) != 0) return fail(reason, "%s: %s", wanted->path, strerror(errno)), NULL;
    int64_t bytes = (int64_t)facts.st_size * MEMORY_PER_FILE_BYTE;
    while (models->count > 0 && is_full(models, bytes)) close_oldest(models);
    Model *model = models->runtime->open(models->runtime, wanted->path, models->job->seed, reason);
    if (model == NULL) return NULL;
    if (!outputs_are_finite(model, reason)) {
        models->runtime->close(model);
        return NULL;
    }
    models->open = reallocate(models->open, models->count + 1, sizeof *models->open);
    models->open[models->count++] = (struct OpenModel){wanted, model, bytes};
    return model;
}

Model *models_get(Models *models, const JobModel *wanted, Reason *reason) {
    for (size_t i = 0; i < models->count; i++) {
        if (models->open[i].of != wanted) continue;
        struct OpenModel found = models->open[i];
        memmove(models->open + i, models->open + i + 1, (models->count - i - 1) * sizeof found);
        models->open[models->count - 1] = found;
        return found.model;
    }
    return open_model(models, wanted, reason);
}
