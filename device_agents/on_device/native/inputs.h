/* The values that a model is run with: those behind the model in its file, else those of the formula (PROTOCOL.md, "The inputs"). */
#ifndef NATIVE_INPUTS_H
#define NATIVE_INPUTS_H

#include "runtime.h"

/* Fill the `place`-th input. False and the reason if the file is damaged or has values of another size for it. */
bool inputs_fill(Tensor *tensor, const Opening *opening, uint64_t place, Reason *reason);
/* The bytes of the model itself in its file; false and the reason. */
bool inputs_model_bytes(const char *path, size_t *bytes, Reason *reason);

#endif
