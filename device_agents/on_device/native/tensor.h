/* Tensors as runtimes show them: the values that go in, and what came out. */
#ifndef NATIVE_TENSOR_H
#define NATIVE_TENSOR_H

#include "base.h"

enum { MAX_RANK = 32 };

typedef enum {
    NO_TYPE, /* strings, complex numbers and others that cannot be filled */
    FLOAT16, BFLOAT16, FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, BOOLEAN
} ElementType;

/* A view of values that the runtime owns. */
typedef struct {
    ElementType type;
    size_t rank, count;
    int64_t shape[MAX_RANK];
    void *data;
} Tensor;

const char *type_name(ElementType type);
size_t type_bytes(ElementType type);

/* Count the elements of type and shape. False, with the reason, if a length is unknown or they cannot be filled. */
bool tensor_measure(Tensor *tensor, Reason *reason);
/* The values of the `index`-th input by the formula in PROTOCOL.md. */
void tensor_fill(Tensor *tensor, uint64_t seed, uint64_t index);
/* Whether all its elements are finite; whole numbers always are. */
bool tensor_is_finite(const Tensor *tensor);
/* Append {"shape", "type", "values"} with at most `most` values. */
void tensor_tell(Text *text, const Tensor *tensor, size_t most);

#endif
