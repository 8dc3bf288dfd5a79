/* The file that ONNX Runtime's profiler writes: JSON, an event a line. */
#ifndef NATIVE_ORT_PROFILE_H
#define NATIVE_ORT_PROFILE_H

#include "executed.h"

/* Add the operators of all inferences but the first `skipped`; false and the reason if there are fewer than wanted. */
bool ort_profile_read(const char *path, size_t skipped, Executed *executed, Reason *reason);

#endif
