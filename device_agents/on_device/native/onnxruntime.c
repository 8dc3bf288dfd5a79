/* ONNX Runtime on the CPU by its C API: inputs and outputs bound beforehand, so that a run copies and allocates nothing. */
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "ort_profile.h"
#include "runtime.h"

/* The API is a table of functions whose order never changes; version 5 has all that are used here, and every later library offers it. */
enum { API_VERSION = 5, LOG_ERRORS = 3, NO_OPTIMISATIONS = 0, ALL_OPTIMISATIONS = 99, ARENA_ALLOCATOR = 1, DEFAULT_MEMORY = 0 };

enum { OPENING_RUNS = 2, LARGEST_GRAPH_BYTES = 8 << 20 };

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtOptions OrtOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtBinding OrtBinding;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtMemory OrtMemory;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorInfo OrtTensorInfo;
typedef struct OrtThreading OrtThreading;

/* place in the table, what it returns, name, arguments */
#define FUNCTIONS(X)                                                                                              \
    X(2, const char *, GetErrorMessage, (const OrtStatus *))                                                      \
    X(3, OrtStatus *, CreateEnv, (int, const char *, OrtEnv **))                                                  \
    X(7, OrtStatus *, CreateSession, (const OrtEnv *, const char *, const OrtOptions *, OrtSession **))           \
    X(10, OrtStatus *, CreateSessionOptions, (OrtOptions **))                                                     \
    X(11, OrtStatus *, SetOptimizedModelFilePath, (OrtOptions *, const char *))                                   \
    X(14, OrtStatus *, EnableProfiling, (OrtOptions *, const char *))                                             \
    X(22, OrtStatus *, SetSessionLogSeverityLevel, (OrtOptions *, int))                                           \
    X(23, OrtStatus *, SetSessionGraphOptimizationLevel, (OrtOptions *, int))                                     \
    X(24, OrtStatus *, SetIntraOpNumThreads, (OrtOptions *, int))                                                 \
    X(25, OrtStatus *, SetInterOpNumThreads, (OrtOptions *, int))                                                 \
    X(30, OrtStatus *, SessionGetInputCount, (const OrtSession *, size_t *))                                      \
    X(31, OrtStatus *, SessionGetOutputCount, (const OrtSession *, size_t *))                                     \
    X(33, OrtStatus *, SessionGetInputTypeInfo, (const OrtSession *, size_t, OrtTypeInfo **))                     \
    X(36, OrtStatus *, SessionGetInputName, (const OrtSession *, size_t, OrtAllocator *, char **))                \
    X(37, OrtStatus *, SessionGetOutputName, (const OrtSession *, size_t, OrtAllocator *, char **))               \
    X(48, OrtStatus *, CreateTensorAsOrtValue, (OrtAllocator *, const int64_t *, size_t, int, OrtValue **))       \
    X(51, OrtStatus *, GetTensorMutableData, (OrtValue *, void **))                                               \
    X(55, OrtStatus *, CastTypeInfoToTensorInfo, (const OrtTypeInfo *, const OrtTensorInfo **))                   \
    X(60, OrtStatus *, GetTensorElementType, (const OrtTensorInfo *, int *))                                      \
    X(61, OrtStatus *, GetDimensionsCount, (const OrtTensorInfo *, size_t *))                                     \
    X(62, OrtStatus *, GetDimensions, (const OrtTensorInfo *, int64_t *, size_t))                                 \
    X(65, OrtStatus *, GetTensorTypeAndShape, (const OrtValue *, OrtTensorInfo **))                               \
    X(69, OrtStatus *, CreateCpuMemoryInfo, (int, int, OrtMemory **))                                             \
    X(76, OrtStatus *, AllocatorFree, (OrtAllocator *, void *))                                                   \
    X(78, OrtStatus *, GetAllocatorWithDefaultOptions, (OrtAllocator **))                                         \
    X(93, void, ReleaseStatus, (OrtStatus *))                                                                     \
    X(95, void, ReleaseSession, (OrtSession *))                                                                   \
    X(96, void, ReleaseValue, (OrtValue *))                                                                       \
    X(98, void, ReleaseTypeInfo, (OrtTypeInfo *))                                                                 \
    X(99, void, ReleaseTensorTypeAndShapeInfo, (OrtTensorInfo *))                                                 \
    X(100, void, ReleaseSessionOptions, (OrtOptions *))                                                           \
    X(110, OrtStatus *, SessionEndProfiling, (OrtSession *, OrtAllocator *, char **))                             \
    X(119, OrtStatus *, CreateEnvWithGlobalThreadPools, (int, const char *, const OrtThreading *, OrtEnv **))     \
    X(120, OrtStatus *, DisablePerSessionThreads, (OrtOptions *))                                                 \
    X(121, OrtStatus *, CreateThreadingOptions, (OrtThreading **))                                                \
    X(122, void, ReleaseThreadingOptions, (OrtThreading *))                                                       \
    X(130, OrtStatus *, AddSessionConfigEntry, (OrtOptions *, const char *, const char *))                        \
    X(133, OrtStatus *, RunWithBinding, (OrtSession *, const void *, const OrtBinding *))                         \
    X(134, OrtStatus *, CreateIoBinding, (OrtSession *, OrtBinding **))                                           \
    X(135, void, ReleaseIoBinding, (OrtBinding *))                                                                \
    X(136, OrtStatus *, BindInput, (OrtBinding *, const char *, const OrtValue *))                                \
    X(137, OrtStatus *, BindOutput, (OrtBinding *, const char *, const OrtValue *))                               \
    X(138, OrtStatus *, BindOutputToDevice, (OrtBinding *, const char *, const OrtMemory *))                      \
    X(140, OrtStatus *, GetBoundOutputValues, (const OrtBinding *, OrtAllocator *, OrtValue ***, size_t *))       \
    X(147, OrtStatus *, SetGlobalIntraOpNumThreads, (OrtThreading *, int))                                        \
    X(148, OrtStatus *, SetGlobalInterOpNumThreads, (OrtThreading *, int))

#define MEMBER(place, returned, name, arguments) returned(*name) arguments;
#define TAKE(place, returned, name, arguments) ort.name = (returned(*) arguments)table[place];

typedef struct {
    const Function *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
} ApiBase;

static struct {
    FUNCTIONS(MEMBER)
    OrtEnv *env;
    int threads;
    OrtMemory *memory;
    OrtAllocator *allocator;
} ort;

typedef struct {
    Model model;
    OrtSession *session;
    OrtBinding *binding;
    OrtValue **outputs;
    char *folder, *graph; /* where the profile and the optimised model are saved; NULL for not at all */
    Reason no_graph;
} OrtModel;

/* Whether a call went well; if not its message becomes the reason. */
static bool went_well(OrtStatus *status, Reason *reason) {
    if (status == NULL) return true;
    fail(reason, "%s", ort.GetErrorMessage(status));
    ort.ReleaseStatus(status);
    return false;
}

static ElementType element_type(int number) {
    static const ElementType types[] = {NO_TYPE, FLOAT32, UINT8, INT8, UINT16, INT16, INT32, INT64, NO_TYPE,
                                        BOOLEAN, FLOAT16, FLOAT64, UINT32, UINT64, NO_TYPE, NO_TYPE, BFLOAT16};
    return number >= 0 && (size_t)number < sizeof types / sizeof *types ? types[number] : NO_TYPE;
}

/* ------------------------------------------------------------------------------------------------------------- models */

/* Type and shape, and the runtime's own number of the type. */
static bool describe(Tensor *tensor, const OrtTensorInfo *info, int *type, Reason *reason) {
    if (info == NULL) return fail(reason, "an input or output is no tensor");
    if (!went_well(ort.GetTensorElementType(info, type), reason)) return false;
    if (!went_well(ort.GetDimensionsCount(info, &tensor->rank), reason)) return false;
    if (tensor->rank > MAX_RANK) return fail(reason, "a tensor has more than %d dimensions", MAX_RANK);
    tensor->type = element_type(*type);
    return went_well(ort.GetDimensions(info, tensor->shape, tensor->rank), reason);
}

static bool describe_input(Tensor *tensor, const OrtSession *session, size_t index, int *type, Reason *reason) {
    OrtTypeInfo *info;
    const OrtTensorInfo *inner = NULL;
    if (!went_well(ort.SessionGetInputTypeInfo(session, index, &info), reason)) return false;
    bool fine = went_well(ort.CastTypeInfoToTensorInfo(info, &inner), reason) && describe(tensor, inner, type, reason);
    ort.ReleaseTypeInfo(info);
    return fine && tensor_measure(tensor, reason);
}

static bool bind_input(const OrtModel *model, size_t index, uint64_t seed, Reason *reason) {
    Tensor tensor = {0};
    OrtValue *value;
    char *name;
    int type;
    if (!describe_input(&tensor, model->session, index, &type, reason)) return false;
    if (!went_well(ort.CreateTensorAsOrtValue(ort.allocator, tensor.shape, tensor.rank, type, &value), reason)) return false;
    bool fine = went_well(ort.GetTensorMutableData(value, &tensor.data), reason);
    if (fine) tensor_fill(&tensor, seed, index);
    fine = fine && went_well(ort.SessionGetInputName(model->session, index, ort.allocator, &name), reason);
    if (fine) {
        fine = went_well(ort.BindInput(model->binding, name, value), reason);
        fine = went_well(ort.AllocatorFree(ort.allocator, name), reason) && fine;
    }
    ort.ReleaseValue(value); /* the binding holds it */
    return fine;
}

/* To a place in memory that the runtime chooses, or, from then on, to the tensor that it made there. */
static bool bind_output(const OrtModel *model, size_t index, Reason *reason) {
    char *name;
    if (!went_well(ort.SessionGetOutputName(model->session, index, ort.allocator, &name), reason)) return false;
    OrtStatus *status = model->outputs == NULL ? ort.BindOutputToDevice(model->binding, name, ort.memory)
                                               : ort.BindOutput(model->binding, name, model->outputs[index]);
    bool fine = went_well(status, reason);
    return went_well(ort.AllocatorFree(ort.allocator, name), reason) && fine;
}

static bool ort_run(Model *model, Reason *reason) {
    const OrtModel *open = (const OrtModel *)model;
    return went_well(ort.RunWithBinding(open->session, NULL, open->binding), reason);
}

static bool bind_outputs(const OrtModel *model, Reason *reason) {
    for (size_t i = 0; i < model->model.outputs; i++) {
        if (!bind_output(model, i, reason)) return false;
    }
    return true;
}

static bool take_outputs(OrtModel *model, Reason *reason) {
    OrtValue **values;
    size_t count;
    if (!went_well(ort.GetBoundOutputValues(model->binding, ort.allocator, &values, &count), reason)) return false;
    model->outputs = allocate(count, sizeof *model->outputs);
    memcpy(model->outputs, values, count * sizeof *values);
    bool fine = count == model->model.outputs || fail(reason, "there are other outputs than the model says");
    model->model.outputs = count;
    return went_well(ort.AllocatorFree(ort.allocator, values), reason) && fine;
}

static bool bind_and_run(OrtModel *model, uint64_t seed, Reason *reason) {
    size_t inputs;
    if (!went_well(ort.CreateIoBinding(model->session, &model->binding), reason)) return false;
    if (!went_well(ort.SessionGetInputCount(model->session, &inputs), reason)) return false;
    for (size_t i = 0; i < inputs; i++) {
        if (!bind_input(model, i, seed, reason)) return false;
    }
    if (!went_well(ort.SessionGetOutputCount(model->session, &model->model.outputs), reason)) return false;
    return bind_outputs(model, reason) && ort_run(&model->model, reason) && take_outputs(model, reason) &&
           bind_outputs(model, reason) && ort_run(&model->model, reason);
}

static void ort_close(Model *model) {
    OrtModel *open = (OrtModel *)model;
    for (size_t i = 0; open->outputs != NULL && i < model->outputs; i++) ort.ReleaseValue(open->outputs[i]);
    free(open->outputs);
    if (open->binding != NULL) ort.ReleaseIoBinding(open->binding);
    if (open->session != NULL) ort.ReleaseSession(open->session);
    remove_folder(open->folder);
    free(open->folder);
    free(open->graph);
    free(open);
}

static bool ort_output(Model *model, size_t index, Tensor *tensor, Reason *reason) {
    OrtValue *value = ((OrtModel *)model)->outputs[index];
    OrtTensorInfo *info;
    int type;
    *tensor = (Tensor){0};
    if (!went_well(ort.GetTensorTypeAndShape(value, &info), reason)) return false;
    bool fine = describe(tensor, info, &type, reason);
    ort.ReleaseTensorTypeAndShapeInfo(info);
    return fine && tensor_measure(tensor, reason) && went_well(ort.GetTensorMutableData(value, &tensor->data), reason);
}

/* ------------------------------------------------------------------------------------------------------------ opening */

static bool set_options(OrtOptions *options, bool as_it_is, Reason *reason) {
    return went_well(ort.SetSessionGraphOptimizationLevel(options, as_it_is ? NO_OPTIMISATIONS : ALL_OPTIMISATIONS), reason) &&
           went_well(ort.SetIntraOpNumThreads(options, ort.threads), reason) &&
           went_well(ort.SetInterOpNumThreads(options, 1), reason) &&
           went_well(ort.SetSessionLogSeverityLevel(options, LOG_ERRORS), reason) &&
           (ort.threads == 1 || went_well(ort.DisablePerSessionThreads(options), reason));
}

/* Weights go into a file of their own beside the graph, which is what makes the graph small enough to be told. */
static bool set_profiling(OrtOptions *options, const OrtModel *model, Reason *reason) {
    char *prefix = format_text("%s/profile", model->folder);
    bool fine = went_well(ort.EnableProfiling(options, prefix), reason);
    free(prefix);
    if (!fine || model->graph == NULL) return fine;
    return went_well(ort.SetOptimizedModelFilePath(options, model->graph), reason) &&
           went_well(ort.AddSessionConfigEntry(options, "session.optimized_model_external_initializers_file_name", "weights"), reason) &&
           went_well(ort.AddSessionConfigEntry(options, "session.optimized_model_external_initializers_min_size_in_bytes", "1024"), reason);
}

static bool make_session(OrtModel *model, const Opening *opening, Reason *reason) {
    OrtOptions *options;
    if (!went_well(ort.CreateSessionOptions(&options), reason)) return false;
    bool fine = set_options(options, opening->as_it_is, reason) && (model->folder == NULL || set_profiling(options, model, reason)) &&
                went_well(ort.CreateSession(ort.env, opening->path, options, &model->session), reason);
    ort.ReleaseSessionOptions(options);
    return fine;
}

/* A model that cannot be saved is opened without saving it. */
static bool make_profiled_session(OrtModel *model, const Opening *opening, Reason *reason) {
    model->folder = make_folder(opening->profile, reason);
    if (model->folder == NULL) return false;
    model->graph = format_text("%s/graph.onnx", model->folder);
    if (make_session(model, opening, &model->no_graph)) return true;
    free(model->graph);
    model->graph = NULL;
    return make_session(model, opening, reason);
}

static Model *ort_open(const Runtime *runtime, const Opening *opening, Reason *reason) {
    OrtModel *model = allocate(1, sizeof *model);
    model->model.runtime = runtime;
    bool made = opening->profile == NULL ? make_session(model, opening, reason) : make_profiled_session(model, opening, reason);
    if (made && bind_and_run(model, opening->seed, reason)) return &model->model;
    ort_close(&model->model);
    return NULL;
}

/* ---------------------------------------------------------------------------------------------------------- profiling */

static void take_graph(Executed *executed, const OrtModel *model) {
    Reason reason = model->no_graph;
    executed->graph = model->graph == NULL ? NULL : read_whole(model->graph, &executed->graph_bytes, &reason);
    if (executed->graph != NULL && executed->graph_bytes > LARGEST_GRAPH_BYTES) {
        fail(&reason, "the optimised model has %zu bytes, more than are told", executed->graph_bytes);
        free(executed->graph);
        executed->graph = NULL;
    }
    if (executed->graph == NULL) executed_lacks(executed, &reason);
}

static bool ort_profile(Model *model, Executed *executed, Reason *reason) {
    OrtModel *open = (OrtModel *)model;
    Reason unread;
    char *path;
    for (size_t i = 0; i < WARM_UP_RUNS + executed->wanted; i++) {
        if (!ort_run(model, reason)) return false;
    }
    if (!went_well(ort.SessionEndProfiling(open->session, ort.allocator, &path), reason)) return false;
    if (!ort_profile_read(path, OPENING_RUNS + WARM_UP_RUNS, executed, &unread)) executed_has_no_operators(executed, &unread);
    take_graph(executed, open);
    return went_well(ort.AllocatorFree(ort.allocator, path), reason);
}

/* -------------------------------------------------------------------------------------------------------------- start */

/* One pool for all models: a pool for each would leave many of them spinning and fighting over the cores. */
static bool make_shared_pool(int threads, Reason *reason) {
    OrtThreading *threading;
    if (!went_well(ort.CreateThreadingOptions(&threading), reason)) return false;
    bool fine = went_well(ort.SetGlobalIntraOpNumThreads(threading, threads), reason) &&
                went_well(ort.SetGlobalInterOpNumThreads(threading, 1), reason) &&
                went_well(ort.CreateEnvWithGlobalThreadPools(LOG_ERRORS, "measure", threading, &ort.env), reason);
    ort.ReleaseThreadingOptions(threading);
    return fine;
}

static bool make_memory(Reason *reason) {
    return went_well(ort.CreateCpuMemoryInfo(ARENA_ALLOCATOR, DEFAULT_MEMORY, &ort.memory), reason) &&
           went_well(ort.GetAllocatorWithDefaultOptions(&ort.allocator), reason);
}

static bool make_env(int threads, Reason *reason) {
    if (threads > 1) return make_shared_pool(threads, reason);
    return went_well(ort.CreateEnv(LOG_ERRORS, "measure", &ort.env), reason);
}

#define FLAGS "\"providers\":[\"CPUExecutionProvider\"],\"graph_optimization\":\"all\",\"inter_op_threads\":1,\"io_binding\":true"

const Runtime *onnxruntime_start(const Libraries *libraries, int threads, Reason *reason) {
    const ApiBase *(*get_base)(void) = (const ApiBase *(*)(void))library_need(libraries, "OrtGetApiBase", reason);
    if (get_base == NULL) return NULL;
    const ApiBase *base = get_base();
    const Function *table = base->get_api(API_VERSION);
    if (table == NULL) return fail(reason, "ONNX Runtime %s has no API version %d", base->get_version(), API_VERSION), NULL;
    FUNCTIONS(TAKE)
    ort.threads = threads;
    if (!make_memory(reason) || !make_env(threads, reason)) return NULL;
    Runtime *runtime = allocate(1, sizeof *runtime);
    *runtime = (Runtime){.name = "onnxruntime", .version = copy_text(base->get_version()),
                         .library_path = library_file(libraries, "OrtGetApiBase"),
                         .flags = threads > 1 ? "{" FLAGS ",\"thread_pool\":\"one, shared by all models\"}" : "{" FLAGS "}",
                         .many_open = true, .open = ort_open, .run = ort_run, .output = ort_output, .close = ort_close,
                         .profile = ort_profile};
    return runtime;
}
