/* TensorFlow Lite by its classic C API, with XNNPACK where the library brings it. */
#include <stdlib.h>
#include <string.h>

#include "inputs.h"
#include "runtime.h"

typedef struct TfModel TfModel;
typedef struct TfOptions TfOptions;
typedef struct TfInterpreter TfInterpreter;
typedef struct TfTensor TfTensor;
typedef struct TfDelegate TfDelegate;

#define FUNCTIONS(X)                                                                   \
    X(const char *, Version, (void))                                                   \
    X(TfModel *, ModelCreateFromFile, (const char *))                                  \
    X(void, ModelDelete, (TfModel *))                                                  \
    X(TfOptions *, InterpreterOptionsCreate, (void))                                   \
    X(void, InterpreterOptionsDelete, (TfOptions *))                                   \
    X(void, InterpreterOptionsSetNumThreads, (TfOptions *, int32_t))                   \
    X(TfInterpreter *, InterpreterCreate, (const TfModel *, const TfOptions *))        \
    X(void, InterpreterDelete, (TfInterpreter *))                                      \
    X(int, InterpreterAllocateTensors, (TfInterpreter *))                              \
    X(int, InterpreterInvoke, (TfInterpreter *))                                       \
    X(int32_t, InterpreterGetInputTensorCount, (const TfInterpreter *))                \
    X(int32_t, InterpreterGetOutputTensorCount, (const TfInterpreter *))               \
    X(TfTensor *, InterpreterGetInputTensor, (const TfInterpreter *, int32_t))         \
    X(const TfTensor *, InterpreterGetOutputTensor, (const TfInterpreter *, int32_t))  \
    X(int, TensorType, (const TfTensor *))                                             \
    X(int32_t, TensorNumDims, (const TfTensor *))                                      \
    X(int32_t, TensorDim, (const TfTensor *, int32_t))                                 \
    X(size_t, TensorByteSize, (const TfTensor *))                                      \
    X(void *, TensorData, (const TfTensor *))

#define MEMBER(returned, name, arguments) returned(*name) arguments;
#define TAKE(returned, name, arguments)                                                              \
    tf.name = (returned(*) arguments)library_need(libraries, "TfLite" #name, reason);                \
    if (tf.name == NULL) return false;

/* The options of XNNPACK begin with the number of threads and have grown over the versions. They are handed back in memory
   of the caller's, by every ABI the same way for any struct of this size, and the library fills in as much as it knows. */
typedef struct {
    int32_t threads;
    unsigned char rest[508];
} DelegateOptions;

static struct {
    FUNCTIONS(MEMBER)
    DelegateOptions (*default_options)(void);
    TfDelegate *(*create_delegate)(const DelegateOptions *); /* NULL where the library does not export XNNPACK */
    void (*delete_delegate)(TfDelegate *);
    void (*add_delegate)(TfOptions *, TfDelegate *);
    int threads;
} tf;

typedef struct {
    Model model;
    TfModel *file;
    TfDelegate *delegate;
    TfInterpreter *interpreter;
} TfOpen;

/* The numbers of the types are those of the file format's runtime: float32 1 … int4 18, bfloat16 19. */
static ElementType element_type(int number) {
    static const ElementType types[] = {NO_TYPE, FLOAT32, INT32,   UINT8,   INT64,  NO_TYPE, BOOLEAN, INT16,  NO_TYPE, INT8,
                                        FLOAT16, FLOAT64, NO_TYPE, UINT64,  NO_TYPE, NO_TYPE, UINT32, UINT16, NO_TYPE, BFLOAT16};
    return number >= 0 && (size_t)number < sizeof types / sizeof *types ? types[number] : NO_TYPE;
}

static bool view(Tensor *tensor, const TfTensor *seen, Reason *reason) {
    int32_t rank = seen ? tf.TensorNumDims(seen) : -1;
    *tensor = (Tensor){0};
    if (rank < 0 || rank > MAX_RANK) return fail(reason, "a tensor has no shape, or more than %d dimensions", MAX_RANK);
    tensor->type = element_type(tf.TensorType(seen));
    tensor->rank = (size_t)rank;
    for (int32_t i = 0; i < rank; i++) tensor->shape[i] = tf.TensorDim(seen, i);
    tensor->data = tf.TensorData(seen);
    if (!tensor_measure(tensor, reason)) return false;
    if (tensor->count && tensor->data == NULL) return fail(reason, "a tensor has no memory");
    return tf.TensorByteSize(seen) == tensor->count * type_bytes(tensor->type) || fail(reason, "a tensor is not as large as its shape says");
}

static bool tflite_run(Model *model, Reason *reason) {
    return tf.InterpreterInvoke(((TfOpen *)model)->interpreter) == 0 || fail(reason, "the interpreter failed; see standard error");
}

static bool tflite_output(Model *model, size_t index, Tensor *tensor, Reason *reason) {
    return view(tensor, tf.InterpreterGetOutputTensor(((TfOpen *)model)->interpreter, (int32_t)index), reason);
}

static void tflite_close(Model *model) {
    TfOpen *open = (TfOpen *)model;
    if (open->interpreter != NULL) tf.InterpreterDelete(open->interpreter);
    if (open->delegate != NULL) tf.delete_delegate(open->delegate);
    if (open->file != NULL) tf.ModelDelete(open->file);
    free(open);
}

/* ------------------------------------------------------------------------------------------------------------ opening */

/* A library that applies XNNPACK by itself finds nothing left to apply it to after this. */
static void add_xnnpack(TfOpen *open, TfOptions *options) {
    if (tf.create_delegate == NULL) return;
    DelegateOptions settings = tf.default_options();
    settings.threads = tf.threads;
    open->delegate = tf.create_delegate(&settings);
    if (open->delegate != NULL) tf.add_delegate(options, open->delegate);
}

static bool make_interpreter(TfOpen *open, const char *path, Reason *reason) {
    open->file = tf.ModelCreateFromFile(path);
    if (open->file == NULL) return fail(reason, "%s is no model that this runtime can read", path);
    TfOptions *options = tf.InterpreterOptionsCreate();
    if (options == NULL) return fail(reason, "there is no memory for the interpreter's options");
    tf.InterpreterOptionsSetNumThreads(options, tf.threads);
    add_xnnpack(open, options);
    open->interpreter = tf.InterpreterCreate(open->file, options);
    tf.InterpreterOptionsDelete(options);
    if (open->interpreter == NULL) return fail(reason, "the model cannot be interpreted; see standard error");
    return tf.InterpreterAllocateTensors(open->interpreter) == 0 || fail(reason, "its tensors cannot be allocated; see standard error");
}

static bool fill_inputs(const TfOpen *open, const Opening *opening, Reason *reason) {
    for (int32_t i = 0; i < tf.InterpreterGetInputTensorCount(open->interpreter); i++) {
        Tensor tensor;
        if (!view(&tensor, tf.InterpreterGetInputTensor(open->interpreter, i), reason)) return false;
        if (!inputs_fill(&tensor, opening, (uint64_t)i, reason)) return false;
    }
    return true;
}

static Model *tflite_open(const Runtime *runtime, const Opening *opening, Reason *reason) {
    TfOpen *open = allocate(1, sizeof *open);
    open->model.runtime = runtime;
    if (make_interpreter(open, opening->path, reason) && fill_inputs(open, opening, reason) && tflite_run(&open->model, reason)) {
        open->model.outputs = (size_t)tf.InterpreterGetOutputTensorCount(open->interpreter);
        return &open->model;
    }
    tflite_close(&open->model);
    return NULL;
}

/* -------------------------------------------------------------------------------------------------------------- start */

static bool take_functions(const Libraries *libraries, Reason *reason) {
    FUNCTIONS(TAKE)
    return true;
}

static void take_xnnpack(const Libraries *libraries) {
    tf.default_options = (DelegateOptions(*)(void))library_symbol(libraries, "TfLiteXNNPackDelegateOptionsDefault");
    tf.delete_delegate = (void (*)(TfDelegate *))library_symbol(libraries, "TfLiteXNNPackDelegateDelete");
    tf.add_delegate = (void (*)(TfOptions *, TfDelegate *))library_symbol(libraries, "TfLiteInterpreterOptionsAddDelegate");
    if (tf.default_options == NULL || tf.delete_delegate == NULL || tf.add_delegate == NULL) return;
    tf.create_delegate = (TfDelegate * (*)(const DelegateOptions *)) library_symbol(libraries, "TfLiteXNNPackDelegateCreate");
}

const Runtime *tflite_start(const Libraries *libraries, int threads, Reason *reason) {
    if (!take_functions(libraries, reason)) return NULL;
    take_xnnpack(libraries);
    tf.threads = threads;
    Runtime *runtime = allocate(1, sizeof *runtime);
    *runtime = (Runtime){.name = "tflite-runtime", .version = copy_text(tf.Version()),
                         .library_path = library_file(libraries, "TfLiteVersion"),
                         .flags = tf.create_delegate ? "{\"delegate\":\"XNNPACK, added by the runner\"}"
                                                     : "{\"delegate\":\"as the library applies it by default\"}",
                         .many_open = true, .open = tflite_open, .run = tflite_run, .output = tflite_output, .close = tflite_close};
    return runtime;
}
