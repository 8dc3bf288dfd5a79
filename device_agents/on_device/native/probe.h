/* Which runtimes work here. */
#ifndef NATIVE_PROBE_H
#define NATIVE_PROBE_H

#include "base.h"

/* Append an object: of each runtime its version, or that it is missing, or why it is broken. */
void tell_runtimes(Text *text, const char *folder, char **paths, size_t count);

#endif
