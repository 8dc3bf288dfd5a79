#include "measurement.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "conditions.h"
#include "host.h"

enum { MOST_SAMPLES_AHEAD = 1 << 20, SOON_NS = 20000000 }; /* most hosts answer while a model is warmed up, or so soon after */

typedef struct {
    int64_t *samples_ns;
    unsigned char *switched;
    size_t count, capacity;
} Samples;

/* How often the kernel has taken this process off its core. */
static long involuntary_switches(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : 0;
}

/* Room for so many samples, each page of it touched, so that no sample waits for the kernel to find memory. */
static void make_room(Samples *samples, size_t capacity) {
    samples->samples_ns = reallocate(samples->samples_ns, capacity, sizeof *samples->samples_ns);
    samples->switched = reallocate(samples->switched, capacity, 1);
    memset(samples->samples_ns + samples->count, 0xFF, (capacity - samples->count) * sizeof *samples->samples_ns);
    memset(samples->switched + samples->count, 0, capacity - samples->count);
    samples->capacity = capacity;
}

static bool timed(Copies *model, int64_t *duration_ns, Reason *reason) {
    int64_t before = clock_ns();
    bool fine = copies_run(model, reason);
    *duration_ns = clock_ns() - before;
    if (*duration_ns < 1) *duration_ns = 1;
    return fine;
}

/* The shortest run but the first, which is cold. A run that was disturbed would make samples too short, so that a third run is made, unless
   one run is as long as a sample, which then is one inference whatever its length. */
static bool warm_up(Copies *model, const Job *job, int64_t *shortest_ns, Reason *reason) {
    int64_t start = clock_ns(), once_ns;
    *shortest_ns = INT64_MAX;
    for (int runs = 0; runs < 3 || (double)(clock_ns() - start) < job->warmup_ms * 1e6; runs += runs < 3) {
        bool long_enough = runs == 2 && (double)*shortest_ns >= job->sample_ms * 1e6;
        if (long_enough && (double)(clock_ns() - start) >= job->warmup_ms * 1e6) break;
        if (!timed(model, &once_ns, reason)) return false;
        if (runs > 0 && once_ns < *shortest_ns) *shortest_ns = once_ns;
    }
    return true;
}

/* Warm up, and see meanwhile that the host has every result so far: its death then costs one measurement at most, the one that it has not
   heard of or the one that begins now. */
static bool get_ready(Copies *model, const Job *job, int64_t *shortest_ns, Reason *reason) {
    int64_t again_ns;
    if (!warm_up(model, job, shortest_ns, reason)) return false;
    for (int64_t soon = clock_ns() + SOON_NS; !host_has_everything();) { /* it stays warm until the answer is there */
        if (clock_ns() >= soon) break;
        if (!timed(model, &again_ns, reason)) return false;
        if (again_ns < *shortest_ns) *shortest_ns = again_ns;
    }
    if (host_has_everything()) return true;
    set_alarm(0); /* it is the host that keeps us, not the model */
    host_wait();
    set_alarm(job->silence_s);
    if (!warm_up(model, job, &again_ns, reason)) return false;
    if (again_ns < *shortest_ns) *shortest_ns = again_ns;
    return true;
}

static bool take_sample(Samples *samples, Copies *model, int64_t loops, Reason *reason) {
    bool fine = true;
    if (samples->count == samples->capacity) make_room(samples, samples->capacity * 2);
    long switches = involuntary_switches();
    int64_t before = clock_ns();
    for (int64_t i = 0; i < loops && fine; i++) fine = copies_run(model, reason);
    int64_t duration_ns = clock_ns() - before;
    samples->samples_ns[samples->count] = duration_ns > 0 ? duration_ns : 1;
    samples->switched[samples->count++] = involuntary_switches() != switches;
    return fine;
}

static void tell_samples(Text *text, const Samples *samples) {
    text_add(text, ",\"samples_ns\":[");
    for (size_t i = 0; i < samples->count; i++) text_add(text, "%s%lld", i ? "," : "", (long long)samples->samples_ns[i]);
    text_add(text, "],\"switched\":[");
    for (size_t i = 0, told = 0; i < samples->count; i++) {
        if (samples->switched[i]) text_add(text, "%s%zu", told++ ? "," : "", i);
    }
    text_add(text, "]");
}

/* Twice as many as are to be expected; where they become more, room is made between two of them. */
static size_t samples_ahead(const Job *job, double measurement_ms, double sample_ns) {
    double expected = fmax(2 * measurement_ms * 1e6 / sample_ns, (double)job->min_samples) + 16;
    return expected < MOST_SAMPLES_AHEAD ? (size_t)expected : MOST_SAMPLES_AHEAD;
}

bool measurement_latency(Text *text, Copies *model, const Job *job, double measurement_ms, Reason *reason) {
    int64_t shortest_ns, khz_before = 0, khz_after = 0;
    Samples samples = {0};
    if (!get_ready(model, job, &shortest_ns, reason)) return false;
    int64_t loops = (int64_t)fmax(1, ceil(job->sample_ms * 1e6 / (double)shortest_ns));
    make_room(&samples, samples_ahead(job, measurement_ms, (double)loops * (double)shortest_ns));
    bool clocked = fastest_khz(&khz_before), fine = true;
    int64_t start = clock_ns();
    while (fine && ((int64_t)samples.count < job->min_samples || (double)(clock_ns() - start) < measurement_ms * 1e6)) {
        fine = take_sample(&samples, model, loops, reason);
    }
    int core = sched_getcpu();
    clocked = clocked && fastest_khz(&khz_after);
    text_add(text, "\"started_ns\":%lld,\"loops\":%lld", (long long)start, (long long)loops);
    tell_samples(text, &samples);
    if (clocked) text_add(text, ",\"clock_khz\":[%lld,%lld]", (long long)khz_before, (long long)khz_after);
    else text_add(text, ",\"clock_khz\":null");
    if (core >= 0) text_add(text, ",\"core\":%d", core);
    else text_add(text, ",\"core\":null");
    free(samples.samples_ns);
    free(samples.switched);
    return fine;
}

bool measurement_energy(Text *text, Copies *model, const Job *job, Energy *energy, Reason *reason) {
    int64_t shortest_ns, inferences = 0;
    if (!get_ready(model, job, &shortest_ns, reason)) return false;
    energy_begin(energy);
    int64_t until = clock_ns() + (int64_t)(job->energy_ms * 1e6);
    bool fine = true;
    do {
        fine = copies_run(model, reason);
        inferences++;
    } while (fine && clock_ns() < until);
    Spent spent = energy_end(energy);
    text_add(text, "\"inferences\":%lld,\"duration_ns\":%lld,\"energy_uj\":%lld", (long long)inferences, (long long)spent.duration_ns,
             (long long)spent.energy_uj);
    return fine;
}
