/* Energy by the processor's counters, or by the board's rails. */
#ifndef NATIVE_ENERGY_H
#define NATIVE_ENERGY_H

#include "base.h"

/* A way to count energy. */
typedef struct Energy Energy;

/* What can be read below the root; NULL where nothing can be. */
Energy *energy_find(const char *root);
/* "rapl", or "ina3221: " and the rails. */
const char *energy_name(const Energy *energy);
typedef struct {
    int64_t duration_ns, energy_uj;
} Spent;

/* Begin to count, and return what was spent since then. Both end the runner if the source cannot be read any more. */
void energy_begin(Energy *energy);
Spent energy_end(Energy *energy);

#endif
