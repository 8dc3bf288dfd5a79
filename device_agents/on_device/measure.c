/* The native runner: measures many models in one process on the device and reports the measurements as JSON lines.

       measure job.json                                     run a job
       measure --probe FOLDER [--libraries PATH...]         say what this device is and which runtimes work

   PROTOCOL.md beside this file is the contract; runner/ is the same for devices with Python. It needs nothing
   but libc and a runtime's shared library, which it opens when it runs. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "native/conditions.h"
#include "native/energy.h"
#include "native/files.h"
#include "native/host.h"
#include "native/job.h"
#include "native/json.h"
#include "native/models.h"
#include "native/probe.h"
#include "native/runtime.h"
#include "native/sha256.h"
#include "native/measurement.h"

#ifndef BUILD
#define BUILD "unknown compiler"
#endif

enum { PROTOCOL = 8 };

typedef struct {
    const Job *job;
    const Runtime *runtime;
    Models models;
    Energy *energy; /* NULL for none */
} Run;

/* -------------------------------------------------------------------------------------------------------------- lines */

/* Write {"event":…, and so on} as one line, and empty the text. */
static void say(Text *fields, const char *event) {
    fprintf(stdout, "{\"event\":\"%s\"%s%s}\n", event, fields->length ? "," : "", fields->length ? fields->data : "");
    if (fflush(stdout) != 0) die("the host is gone: nothing can be told any more");
    text_free(fields);
}

static void add_string(Text *text, const char *name, const char *value) {
    text_add(text, "%s\"%s\":", text->length ? "," : "", name);
    if (value != NULL) json_add_string(text, value);
    else text_add(text, "null");
}

static void add_digest(Text *text, const char *name, const char *path) {
    char hex[65];
    add_string(text, name, sha256_file(path, hex) ? hex : NULL);
}

static void add_measurement(Text *text, const JobModel *model, const JobRound *round) {
    add_string(text, "model", model->id);
    text_add(text, ",\"round\":%lld", (long long)round->number);
}

static void say_hello(const Run *run) {
    Text text = {0};
    text_add(&text, "\"protocol\":%d,\"runner\":\"native\"", PROTOCOL);
    add_string(&text, "build", BUILD);
    add_string(&text, "runtime", run->job->runtime);
    add_string(&text, "version", run->runtime->version);
    add_digest(&text, "library_sha256", run->runtime->library_path);
    text_add(&text, ",\"flags\":%s", run->runtime->flags);
    add_digest(&text, "runner_sha256", "/proc/self/exe");
    text_add(&text, ",\"affinity\":");
    tell_affinity(&text);
    text_add(&text, ",\"pid\":%ld", (long)getpid());
    add_string(&text, "energy_source", run->energy ? energy_name(run->energy) : NULL);
    text_add(&text, ",\"device\":");
    tell_device(&text, run->job->root);
    say(&text, "hello");
}

/* -------------------------------------------------------------------------------------------------------------- lease */

/* Hold the lock of the lease file as long as the process lives; if another runner holds it, report that and end. */
static void take_lease(const char *path) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0 && (errno == EACCES || errno == EROFS)) file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) die("the lease %s cannot be opened: %s", path, strerror(errno));
    if (flock(file, LOCK_EX | LOCK_NB) == 0) {
        if (ftruncate(file, 0) == 0) dprintf(file, "process %ld\n", (long)getpid());
        return;
    }
    if (errno != EWOULDBLOCK) die("the lease %s cannot be taken: %s", path, strerror(errno));
    char *holder = read_line(path);
    Text text = {0};
    add_string(&text, "holder", holder ? holder : "");
    say(&text, "busy");
    die("the device is busy; it is leased to %s", holder && *holder ? holder : "another");
}

/* ------------------------------------------------------------------------------------------------------------- measurements */

static bool tell_outputs(Text *text, Model *model, int64_t most, Reason *reason) {
    Tensor tensor;
    text_add(text, "\"outputs\":[");
    for (size_t i = 0; i < model->outputs; i++) {
        if (!model->runtime->output(model, i, &tensor, reason)) return false;
        if (i) text_add(text, ",");
        tensor_tell(text, &tensor, (size_t)most);
    }
    text_add(text, "]");
    return true;
}

static bool measurement(Run *run, Text *text, JobModel *wanted, double measurement_ms, Reason *reason) {
    text_add(text, ",");
    if (run->job->profiled) return models_tell_executed(text, &run->models, wanted, reason);
    Copies *model = models_get(&run->models, wanted, reason);
    if (model == NULL) return false;
    wanted->not_finite = model->not_finite;
    if (run->job->outputs) return tell_outputs(text, model->copies[0], run->job->outputs, reason);
    if (run->job->energy_ms > 0) return measurement_energy(text, model, run->job, run->energy, reason);
    return measurement_latency(text, model, run->job, measurement_ms, reason);
}

/* One measurement, reported in a line; a model that cannot be run is left out from then on. */
static void measure(Run *run, JobModel *model, const JobRound *round, const char *event, double measurement_ms) {
    Text text = {0};
    Reason reason = {""};
    add_measurement(&text, model, round);
    say(&text, "begin");
    set_alarm(run->job->silence_s);
    add_measurement(&text, model, round);
    bool fine = measurement(run, &text, model, measurement_ms, &reason);
    set_alarm(0);
    if (fine && model->not_finite && !model->told) {
        Text also = {0};
        add_measurement(&also, model, round);
        say(&also, "not_finite");
        model->told = true;
    }
    if (!fine) {
        text_free(&text);
        add_measurement(&text, model, round);
        add_string(&text, "reason", reason.text);
        model->left_out = true;
    }
    say(&text, fine ? event : "failed");
    host_told();
}

static void watch_idle(const Run *run, const JobRound *round) {
    Text text = {0};
    energy_begin(run->energy);
    host_listen((int64_t)(run->job->energy_ms * 1e6));
    Spent spent = energy_end(run->energy);
    text_add(&text, "\"round\":%lld,\"duration_ns\":%lld,\"energy_uj\":%lld", (long long)round->number, (long long)spent.duration_ns,
             (long long)spent.energy_uj);
    say(&text, "idle");
}

static void run_round(Run *run, const JobRound *round) {
    const Job *job = run->job;
    bool latency = job_is_for_latency(job);
    const char *event = latency ? "measurement" : job->outputs ? "outputs" : job->profiled ? "executed" : "energy";
    int64_t measurements = 0, started_ns = clock_ns();
    Text text = {0};
    text_add(&text, "\"round\":%lld,\"clock_ns\":%lld,", (long long)round->number, (long long)started_ns);
    tell_conditions(&text, job->root);
    say(&text, "round");
    if (job->energy_ms > 0) watch_idle(run, round);
    for (size_t i = 0; i < round->count; i++) {
        JobModel *model = &job->models[round->measurements[i]];
        host_listen(0);
        if (model->left_out) continue;
        bool look = latency && job->reference && !job->reference->left_out && measurements % job->reference_every == 0;
        if (look) measure(run, job->reference, round, "reference", job->reference_ms);
        measurements++;
        if (model->left_out) continue;
        measure(run, model, round, event, job->measurement_ms);
    }
    host_listen((int64_t)(job->min_round_s * 1e9) - (clock_ns() - started_ns));
}

/* ---------------------------------------------------------------------------------------------------------------- jobs */

static void open_libraries(Libraries *libraries, const Job *job) {
    Reason reason;
    for (size_t i = 0; i < job->library_count; i++) {
        if (!libraries_open(libraries, job->libraries[i], &reason)) die("%s", reason.text);
    }
}

static void run_job(const char *path) {
    static Run run; /* static, because the runtimes' own threads may still read it when the process ends */
    static Libraries libraries;
    Reason reason;
    Text text = {0};
    Job *job = job_read(path);
    run.job = job;
    if (job->lease != NULL) take_lease(job->lease);
    if (job->cpu_count && !pin_to(job->cpus, job->cpu_count, &reason)) die("%s", reason.text);
    open_libraries(&libraries, job);
    run.runtime = runtime_start(job->runtime, &libraries, job->threads, &reason);
    if (run.runtime == NULL) die("the job's \"runtime\" cannot be used: %s", reason.text);
    run.models = (Models){.runtime = run.runtime, .job = job};
    find_clocks(job->root);
    run.energy = energy_find(job->root);
    host_acknowledges(job->acknowledged);
    if (job->energy_ms > 0 && run.energy == NULL) die("\"energy_ms\" asks for energy, and there is no energy source to be read here");
    say_hello(&run);
    for (size_t i = 0; i < job->round_count; i++) run_round(&run, &job->rounds[i]);
    tell_conditions(&text, job->root);
    say(&text, "done");
}

static void probe(const char *folder, char **libraries, size_t count) {
    static const char ROOT[] = "/";
    Text text = {0};
    find_clocks(ROOT);
    Energy *energy = energy_find(ROOT);
    text_add(&text, "\"protocol\":%d,\"runner\":\"native\",\"device\":", PROTOCOL);
    tell_device(&text, ROOT);
    add_string(&text, "energy_source", energy ? energy_name(energy) : NULL);
    text_add(&text, ",\"runtimes\":");
    tell_runtimes(&text, folder, libraries, count);
    text_add(&text, ",");
    tell_conditions(&text, ROOT);
    say(&text, "probe");
}

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
    setenv("ORT_DISABLE_TELEMETRY", "1", 0); /* it would keep a database, and send, while models are measured */
    bool probing = argc >= 3 && strcmp(argv[1], "--probe") == 0;
    if (probing && argc == 3) probe(argv[2], NULL, 0);
    else if (probing && strcmp(argv[3], "--libraries") == 0) probe(argv[2], argv + 4, (size_t)argc - 4);
    else if (argc == 2 && argv[1][0] != '-') run_job(argv[1]);
    else die("usage: measure job.json, or measure --probe FOLDER [--libraries PATH...]");
    return 0;
}
