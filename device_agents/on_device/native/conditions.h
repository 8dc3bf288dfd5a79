/* What this device is and the state that it is in, read below a root that tests replace. What cannot be read is null. */
#ifndef NATIVE_CONDITIONS_H
#define NATIVE_CONDITIONS_H

#include "base.h"

/* Append {"system", "kernel", …}. */
void tell_device(Text *text, const char *root);
/* Append "load_1min":…,"frequencies_khz":… without braces. */
void tell_conditions(Text *text, const char *root);
/* The clock files of all cores, found once: looking for them takes longer than reading them. */
void find_clocks(const char *root);
/* The clock of the fastest core, which is the one at work; false where none can be read. */
bool fastest_khz(int64_t *khz);

/* Stay on these cores from now on; false and the reason if one was refused. */
bool pin_to(const int64_t *cpus, size_t count, Reason *reason);
/* Append the list of cores that may be used, or null. */
void tell_affinity(Text *text);

#endif
