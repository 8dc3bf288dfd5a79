/* LiteRT on the CPU by its C API: a compiled model, its kernels XNNPACK's, buffers as it requires them, made once. */
#include <stdlib.h>
#include <string.h>

#include "inputs.h"
#include "litert_profile.h"
#include "runtime.h"
#include "sha256.h"

enum { CPU = 1, FOR_READING = 0, FOR_WRITING = 1, LARGEST_RANK = 8 };

typedef struct LrEnvironment LrEnvironment;
typedef struct LrModel LrModel;
typedef struct LrOptions LrOptions;
typedef struct LrOpaque LrOpaque;
typedef struct LrCompiled LrCompiled;
typedef struct LrSignature LrSignature;
typedef struct LrTensor LrTensor;
typedef struct LrRequirements LrRequirements;
typedef struct LrBuffer LrBuffer;

/* A setting of the environment: its tag, and a tagged value of which we use the whole numbers. */
typedef struct {
    int tag;
    struct {
        int type;
        union {
            int64_t whole;
            void *pointer;
        } value;
    } any;
} LrSetting;

enum { TAG_ACCELERATORS = 24, TAG_LOG_SEVERITY = 25, TYPE_WHOLE = 2, LOG_ERRORS = 3 };
_Static_assert(sizeof(LrSetting) == 24 || sizeof(void *) != 8, "the struct as LiteRT lays it out");

/* Type and shape. The lowest seven bits of `rank` are the rank, the eighth says whether there are strides. */
typedef struct {
    int type;
    uint32_t rank;
    int32_t dimensions[LARGEST_RANK];
    uint32_t strides[LARGEST_RANK];
} LrRanked;

_Static_assert(sizeof(LrRanked) == 72, "the struct as LiteRT lays it out");

#define FUNCTIONS(X)                                                                                             \
    X(int, CreateEnvironment, (int, const LrSetting *, LrEnvironment **))                                        \
    X(int, CreateOptions, (LrOptions **))                                                                        \
    X(int, SetOptionsHardwareAccelerators, (LrOptions *, int))                                                   \
    X(int, CreateOpaqueOptions, (const char *, void *, void (*)(void *), LrOpaque **))                           \
    X(int, AddOpaqueOptions, (LrOptions *, LrOpaque *))                                                          \
    X(int, CreateModelFromFile, (LrEnvironment *, const char *, LrModel **))                                     \
    X(void, DestroyModel, (LrModel *))                                                                           \
    X(int, GetModelSignature, (LrModel *, size_t, LrSignature **))                                               \
    X(int, GetNumSignatureInputs, (LrSignature *, size_t *))                                                     \
    X(int, GetNumSignatureOutputs, (LrSignature *, size_t *))                                                    \
    X(int, GetSignatureInputTensorByIndex, (LrSignature *, size_t, LrTensor **))                                 \
    X(int, GetSignatureOutputTensorByIndex, (LrSignature *, size_t, LrTensor **))                                \
    X(int, GetRankedTensorType, (LrTensor *, LrRanked *))                                                        \
    X(int, CreateCompiledModel, (LrEnvironment *, LrModel *, LrOptions *, LrCompiled **))                        \
    X(void, DestroyCompiledModel, (LrCompiled *))                                                                \
    X(int, GetCompiledModelInputBufferRequirements, (LrCompiled *, size_t, size_t, LrRequirements **))           \
    X(int, GetCompiledModelOutputBufferRequirements, (LrCompiled *, size_t, size_t, LrRequirements **))          \
    X(int, CreateManagedTensorBufferFromRequirements,                                                            \
      (LrEnvironment *, const LrRanked *, LrRequirements *, LrBuffer **))                                        \
    X(void, DestroyTensorBuffer, (LrBuffer *))                                                                   \
    X(int, GetTensorBufferPackedSize, (LrBuffer *, size_t *))                                                    \
    X(int, LockTensorBuffer, (LrBuffer *, void **, int))                                                         \
    X(int, UnlockTensorBuffer, (LrBuffer *))                                                                     \
    X(int, RunCompiledModel, (LrCompiled *, size_t, size_t, LrBuffer **, size_t, LrBuffer **))

#define MEMBER(returned, name, arguments) returned(*name) arguments;
#define TAKE(returned, name, arguments)                                                              \
    lr.name = (returned(*) arguments)library_need(libraries, "LiteRt" #name, reason);                \
    if (lr.name == NULL) return false;

static struct {
    FUNCTIONS(MEMBER)
    LrEnvironment *environment;
    LrOptions *options, *profiling_options; /* the latter: NULL until a model is profiled */
    int threads;
} lr;

typedef struct {
    LrBuffer *buffer;
    LrRanked type;
} Buffer;

typedef struct {
    Model model;
    LrModel *file;
    LrCompiled *compiled;
    size_t inputs;
    Buffer *buffers;    /* of the inputs, then of the outputs */
    LrBuffer **handles; /* the same, as a run wants them */
} LrOpen;

static bool went_well(int status, const char *what, Reason *reason) {
    return status == 0 || fail(reason, "LiteRT could not %s: its status is %d; see standard error", what, status);
}

static ElementType element_type(int number) {
    static const ElementType types[] = {NO_TYPE, FLOAT32, INT32,   UINT8,   INT64,   NO_TYPE, BOOLEAN, INT16,  NO_TYPE, INT8,
                                        FLOAT16, FLOAT64, NO_TYPE, UINT64,  NO_TYPE, NO_TYPE, UINT32, UINT16, NO_TYPE, BFLOAT16};
    return number >= 0 && (size_t)number < sizeof types / sizeof *types ? types[number] : NO_TYPE;
}

/* ------------------------------------------------------------------------------------------------------------ buffers */

static bool describe(Tensor *tensor, const LrRanked *type, Reason *reason) {
    *tensor = (Tensor){.type = element_type(type->type), .rank = type->rank & 0x7F};
    if (tensor->rank > LARGEST_RANK) return fail(reason, "a tensor has more than %d dimensions", LARGEST_RANK);
    for (size_t i = 0; i < tensor->rank; i++) tensor->shape[i] = type->dimensions[i];
    return tensor_measure(tensor, reason);
}

/* The elements of a buffer, until it is let go of again. */
static bool lock(const Buffer *buffer, Tensor *tensor, int mode, Reason *reason) {
    size_t size;
    if (!describe(tensor, &buffer->type, reason)) return false;
    if (!went_well(lr.GetTensorBufferPackedSize(buffer->buffer, &size), "tell the size of a buffer", reason)) return false;
    if (size != tensor->count * type_bytes(tensor->type)) return fail(reason, "a buffer is not as large as its shape says");
    return went_well(lr.LockTensorBuffer(buffer->buffer, &tensor->data, mode), "lock a buffer", reason);
}

static bool make_buffer(LrOpen *open, LrSignature *signature, size_t place, Reason *reason) {
    bool input = place < open->inputs;
    size_t index = input ? place : place - open->inputs;
    Buffer *buffer = &open->buffers[place];
    LrTensor *tensor;
    LrRequirements *requirements;
    Tensor described;
    int status = input ? lr.GetSignatureInputTensorByIndex(signature, index, &tensor)
                       : lr.GetSignatureOutputTensorByIndex(signature, index, &tensor);
    if (!went_well(status, "find a tensor", reason)) return false;
    if (!went_well(lr.GetRankedTensorType(tensor, &buffer->type), "tell the shape of a tensor", reason)) return false;
    if (!describe(&described, &buffer->type, reason)) return false;
    status = input ? lr.GetCompiledModelInputBufferRequirements(open->compiled, 0, index, &requirements)
                   : lr.GetCompiledModelOutputBufferRequirements(open->compiled, 0, index, &requirements);
    if (!went_well(status, "tell what a buffer must be like", reason)) return false;
    status = lr.CreateManagedTensorBufferFromRequirements(lr.environment, &buffer->type, requirements, &buffer->buffer);
    open->handles[place] = buffer->buffer;
    return went_well(status, "make a buffer", reason);
}

static bool fill_input(const Buffer *buffer, const Opening *opening, uint64_t index, Reason *reason) {
    Tensor tensor;
    if (!lock(buffer, &tensor, FOR_WRITING, reason)) return false;
    bool filled = inputs_fill(&tensor, opening, index, reason);
    return went_well(lr.UnlockTensorBuffer(buffer->buffer), "unlock a buffer", filled ? reason : NULL) && filled;
}

static bool make_buffers(LrOpen *open, const Opening *opening, Reason *reason) {
    LrSignature *signature;
    if (!went_well(lr.GetModelSignature(open->file, 0, &signature), "find the signature", reason)) return false;
    if (!went_well(lr.GetNumSignatureInputs(signature, &open->inputs), "count the inputs", reason)) return false;
    if (!went_well(lr.GetNumSignatureOutputs(signature, &open->model.outputs), "count the outputs", reason)) return false;
    size_t count = open->inputs + open->model.outputs;
    open->buffers = allocate(count, sizeof *open->buffers);
    open->handles = allocate(count, sizeof(LrBuffer *));
    for (size_t i = 0; i < count; i++) {
        if (!make_buffer(open, signature, i, reason)) return false;
        if (i < open->inputs && !fill_input(&open->buffers[i], opening, i, reason)) return false;
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------- models */

static bool litert_run(Model *model, Reason *reason) {
    LrOpen *open = (LrOpen *)model;
    int status = lr.RunCompiledModel(open->compiled, 0, open->inputs, open->handles, model->outputs, open->handles + open->inputs);
    return went_well(status, "run the model", reason);
}

/* The memory is the host's own and stays where it is, so that it may be looked at after unlocking, until the next run. */
static bool litert_output(Model *model, size_t index, Tensor *tensor, Reason *reason) {
    const LrOpen *open = (const LrOpen *)model;
    const Buffer *buffer = &open->buffers[open->inputs + index];
    return lock(buffer, tensor, FOR_READING, reason) && went_well(lr.UnlockTensorBuffer(buffer->buffer), "unlock a buffer", reason);
}

static void litert_close(Model *model) {
    LrOpen *open = (LrOpen *)model;
    for (size_t i = 0; open->buffers != NULL && i < open->inputs + model->outputs; i++) {
        if (open->buffers[i].buffer != NULL) lr.DestroyTensorBuffer(open->buffers[i].buffer);
    }
    free(open->buffers);
    free(open->handles);
    if (open->compiled != NULL) lr.DestroyCompiledModel(open->compiled);
    if (open->file != NULL) lr.DestroyModel(open->file);
    free(open);
}

/* Options that are read as TOML under the name of whom they concern. Takes the text over. */
static bool add_options(LrOptions *options, const char *name, char *toml, Reason *reason) {
    LrOpaque *more;
    return went_well(lr.CreateOpaqueOptions(name, toml, free, &more), "make options", reason) &&
           went_well(lr.AddOpaqueOptions(options, more), "set options", reason);
}

/* The CPU alone, and its number of threads; made once. */
static bool make_options(LrOptions **options, bool profiling, Reason *reason) {
    LrOptions *made;
    if (*options != NULL) return true;
    if (!went_well(lr.CreateOptions(&made), "make options", reason)) return false;
    if (!went_well(lr.SetOptionsHardwareAccelerators(made, CPU), "choose the CPU", reason)) return false;
    if (!add_options(made, "xnnpack", format_text("num_threads = %d\n", lr.threads), reason)) return false;
    if (profiling && !add_options(made, "runtime_options_string", copy_text("enable_profiling = true\n"), reason)) return false;
    *options = made;
    return true;
}

static Model *litert_open(const Runtime *runtime, const Opening *opening, Reason *reason) {
    if (opening->profile != NULL && !make_options(&lr.profiling_options, true, reason)) return NULL;
    LrOptions *options = opening->profile != NULL ? lr.profiling_options : lr.options;
    LrOpen *open = allocate(1, sizeof *open);
    open->model.runtime = runtime;
    if (went_well(lr.CreateModelFromFile(lr.environment, opening->path, &open->file), "read the model", reason) &&
        went_well(lr.CreateCompiledModel(lr.environment, open->file, options, &open->compiled), "compile the model", reason) &&
        make_buffers(open, opening, reason) && litert_run(&open->model, reason)) {
        return &open->model;
    }
    litert_close(&open->model);
    return NULL;
}

static bool profile(Model *model, Executed *executed, Reason *reason) {
    return litert_profile(model, ((LrOpen *)model)->compiled, executed, reason);
}

/* -------------------------------------------------------------------------------------------------------------- start */

static bool take_functions(const Libraries *libraries, Reason *reason) {
    /* Older libraries make a model without the environment, and would take that for the path. */
    if (library_symbol(libraries, "LiteRtCreateModelFromFd") == NULL) {
        return fail(reason, "%s is too old a LiteRT; version 2.1.6 or later is needed", libraries->paths[libraries->count - 1]);
    }
    FUNCTIONS(TAKE)
    return true;
}

/* The library has no function for its version, but contains it as text. */
static char *version_of(const char *path) {
    char hex[65];
    return sha256_file(path, hex) ? format_text("sha256 %.12s", hex) : copy_text("unknown");
}

const Runtime *litert_start(const Libraries *libraries, int threads, Reason *reason) {
    static const LrSetting SETTINGS[] = {{TAG_ACCELERATORS, {TYPE_WHOLE, {CPU}}}, {TAG_LOG_SEVERITY, {TYPE_WHOLE, {LOG_ERRORS}}}};
    if (!take_functions(libraries, reason)) return NULL;
    if (!went_well(lr.CreateEnvironment(2, SETTINGS, &lr.environment), "start", reason)) return NULL;
    lr.threads = threads;
    litert_profile_take(libraries);
    if (!make_options(&lr.options, false, reason)) return NULL;
    char *path = library_file(libraries, "LiteRtCreateEnvironment");
    Runtime *runtime = allocate(1, sizeof *runtime);
    *runtime = (Runtime){.name = "litert", .version = version_of(path), .library_path = path,
                         .flags = "{\"delegate\":\"XNNPACK, as the runtime applies it by default\",\"api\":\"compiled model\"}",
                         .many_open = true, /* XNNPACK's workers sleep between runs */
                         .open = litert_open, .run = litert_run, .output = litert_output, .close = litert_close,
                         .profile = profile};
    return runtime;
}
