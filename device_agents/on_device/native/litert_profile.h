/* The profiler of a compiled model of LiteRT. */
#ifndef NATIVE_LITERT_PROFILE_H
#define NATIVE_LITERT_PROFILE_H

#include "runtime.h"

/* Take the library's functions; those that it lacks are told when a model is profiled. */
void litert_profile_take(const Libraries *libraries);
/* As Runtime.profile, for a model that was compiled to `compiled` (a LiteRtCompiledModel) with profiling enabled. */
bool litert_profile(Model *model, void *compiled, Executed *executed, Reason *reason);

#endif
