#include "runtime.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *entry; /* the symbol by which its library is known */
    RuntimeStart *start;
} STARTS[] = {
    {"onnxruntime", "OrtGetApiBase", onnxruntime_start},
    {"litert", "LiteRtCreateEnvironment", litert_start},
    {"litert", "TfLiteModelCreateFromFile", tflite_start},
    {"tflite-runtime", "TfLiteModelCreateFromFile", tflite_start},
    {"fake", NULL, fake_start},
};
enum { START_COUNT = sizeof STARTS / sizeof *STARTS };

const char *const RUNTIME_NAMES[] = {"onnxruntime", "litert", "tflite-runtime", NULL};

/* ---------------------------------------------------------------------------------------------------------- libraries */

bool libraries_open(Libraries *libraries, const char *path, Reason *reason) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (handle == NULL) {
        const char *why = dlerror();
        return fail(reason, "the library %s cannot be opened: %s", path, why != NULL ? why : "nobody says why");
    }
    libraries->handles = reallocate(libraries->handles, libraries->count + 1, sizeof *libraries->handles);
    libraries->paths = reallocate(libraries->paths, libraries->count + 1, sizeof *libraries->paths);
    libraries->handles[libraries->count] = handle;
    libraries->paths[libraries->count++] = copy_text(path);
    return true;
}

Function library_symbol(const Libraries *libraries, const char *name) {
    if (libraries->count == 0) return NULL;
    void *found = dlsym(libraries->handles[libraries->count - 1], name);
    Function function; /* ISO C knows no cast from an object's pointer to a function's, POSIX promises that they are alike */
    memcpy(&function, &found, sizeof function);
    return function;
}

Function library_need(const Libraries *libraries, const char *name, Reason *reason) {
    Function found = library_symbol(libraries, name);
    if (found == NULL) {
        const char *path = libraries->count ? libraries->paths[libraries->count - 1] : "(no library was named)";
        fail(reason, "the library %s has no function %s; is it another runtime's, or another version?", path, name);
    }
    return found;
}

char *library_file(const Libraries *libraries, const char *symbol) {
    Dl_info info;
    void *found = dlsym(libraries->handles[libraries->count - 1], symbol);
    bool known = found != NULL && dladdr(found, &info) != 0 && info.dli_fname != NULL;
    return copy_text(known ? info.dli_fname : libraries->paths[libraries->count - 1]);
}

/* ----------------------------------------------------------------------------------------------------------- runtimes */

bool runtime_is_in(const char *name, const Libraries *libraries) {
    for (size_t i = 0; i < START_COUNT; i++) {
        if (strcmp(STARTS[i].name, name) == 0 && STARTS[i].entry && library_symbol(libraries, STARTS[i].entry)) return true;
    }
    return false;
}

const Runtime *runtime_start(const char *name, const Libraries *libraries, int threads, Reason *reason) {
    const char *wanted = NULL;
    for (size_t i = 0; i < START_COUNT; i++) {
        if (strcmp(STARTS[i].name, name) != 0) continue;
        if (STARTS[i].entry == NULL || library_symbol(libraries, STARTS[i].entry) != NULL) {
            return STARTS[i].start(libraries, threads, reason);
        }
        wanted = wanted ? wanted : STARTS[i].entry;
    }
    if (wanted == NULL) {
        fail(reason, "the native runner has no runtime \"%s\"; it has onnxruntime, litert and tflite-runtime", name);
    } else if (libraries->count == 0) {
        fail(reason, "the runtime %s needs its shared library; the job names none", name);
    } else {
        library_need(libraries, wanted, reason);
    }
    return NULL;
}
