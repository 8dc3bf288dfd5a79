/* A runtime: opens models, runs them, shows their outputs. A new one is a file and a line in runtime.c. */
#ifndef NATIVE_RUNTIME_H
#define NATIVE_RUNTIME_H

#include "executed.h"
#include "tensor.h"

typedef void (*Function)(void);

/* An open model; each runtime's own struct begins with it. */
typedef struct Model {
    const struct Runtime *runtime;
    size_t outputs;
} Model;

/* How a model is opened. */
typedef struct {
    const char *path;
    uint64_t seed;
    bool as_it_is;       /* not optimised, if the runtime has a choice */
    const char *profile; /* NULL: without the runtime's profiler; else the template of a folder that its files go into */
} Opening;

typedef struct Runtime {
    const char *name;
    char *version;
    char *library_path;
    const char *flags; /* a JSON object */
    bool many_open;    /* open models do not each own a pool of spinning threads */
    /* Open a model, fill its inputs from the seed and run it once; NULL and the reason if that cannot be done. */
    Model *(*open)(const struct Runtime *runtime, const Opening *opening, Reason *reason);
    bool (*run)(Model *model, Reason *reason);
    /* A view of an output, until the next run. */
    bool (*output)(Model *model, size_t index, Tensor *tensor, Reason *reason);
    void (*close)(Model *model);
    /* Warm up a model that was opened with the profiler, run it as often as wanted, and tell what was executed. False and the reason
       if a run fails. NULL: this runtime has no profiler. */
    bool (*profile)(Model *model, Executed *executed, Reason *reason);
} Runtime;

/* Libraries that were opened with their symbols global, in this order. */
typedef struct {
    size_t count;
    void **handles;
    char **paths;
} Libraries;

/* Open one library more; false and the reason if it cannot be. */
bool libraries_open(Libraries *libraries, const char *path, Reason *reason);
/* A symbol of the library opened last, or NULL. */
Function library_symbol(const Libraries *libraries, const char *name);
/* As above, with a reason that names library and symbol. */
Function library_need(const Libraries *libraries, const char *name, Reason *reason);
/* The file that the library opened last came from; the caller frees it. */
char *library_file(const Libraries *libraries, const char *symbol);

/* The runtime of this name for so many threads, out of the library opened last. It lives as long as the runner. NULL and the reason. */
const Runtime *runtime_start(const char *name, const Libraries *libraries, int threads, Reason *reason);
/* The names of all runtimes that libraries can bring, NULL at the end. */
extern const char *const RUNTIME_NAMES[];
/* Whether the library opened last has what this runtime begins with. */
bool runtime_is_in(const char *name, const Libraries *libraries);

/* Each runtime's own start; they take the same arguments. */
typedef const Runtime *RuntimeStart(const Libraries *libraries, int threads, Reason *reason);
RuntimeStart onnxruntime_start, litert_start, tflite_start, fake_start;

#endif
