/* Running one model for a while. */
#ifndef NATIVE_MEASUREMENT_H
#define NATIVE_MEASUREMENT_H

#include "energy.h"
#include "job.h"
#include "models.h"

/* Warm up, sample, and append what was seen, without braces. False and the reason if a run fails. */
bool measurement_latency(Text *text, Copies *model, const Job *job, double measurement_ms, Reason *reason);
/* The same for the energy of as many runs as fit into the job's time. */
bool measurement_energy(Text *text, Copies *model, const Job *job, Energy *energy, Reason *reason);

#endif
