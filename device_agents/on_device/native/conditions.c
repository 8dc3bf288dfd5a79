#include "conditions.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "files.h"
#include "json.h"
#include "thermal.h"

#define CORES "sys/devices/system/cpu/cpu[0-9]*/"

static Paths clocks;

/* ------------------------------------------------------------------------------------------------------------- device */

/* The model that /proc/cpuinfo names; NULL if it names none. The caller frees it. */
static char *cpu_model(const char *root) {
    static const char *const NAMES[] = {"model name", "Hardware", "Processor"};
    char *found = NULL;
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES && found == NULL; i++) {
        found = find_field(root, "proc/cpuinfo", NAMES[i]);
        if (found != NULL && *found == '\0') {
            free(found);
            found = NULL;
        }
    }
    return found;
}

static void tell_memory(Text *text, const char *root) {
    char *total = find_field(root, "proc/meminfo", "MemTotal"), *end = total;
    long long kilobytes = total ? strtoll(total, &end, 10) : 0;
    bool known = total != NULL && end != total && kilobytes > 0 && kilobytes < INT64_MAX / 1024;
    if (known) text_add(text, "%lld", kilobytes * 1024);
    else text_add(text, "null");
    free(total);
}

/* The governors of all cores, each once, joined by plus signs. */
static void tell_governor(Text *text, const char *root) {
    Paths paths = find_paths(root, CORES "cpufreq/scaling_governor"), names = {0};
    Text joined = {0};
    for (size_t i = 0; i < paths.count; i++) paths_add(&names, read_line(paths.paths[i]));
    paths_sort(&names);
    for (size_t i = 0; i < names.count; i++) {
        if (i == 0 || strcmp(names.paths[i], names.paths[i - 1]) != 0) text_add(&joined, "%s%s", i ? "+" : "", names.paths[i]);
    }
    json_add_string(text, joined.length ? joined.data : "not readable");
    text_free(&joined);
    paths_free(&names);
    paths_free(&paths);
}

void tell_device(Text *text, const char *root) {
    struct utsname names;
    if (uname(&names) != 0) memset(&names, 0, sizeof names);
    char *model = cpu_model(root);
    text_add(text, "{\"system\":");
    json_add_string(text, names.sysname);
    text_add(text, ",\"kernel\":");
    json_add_string(text, names.release);
    text_add(text, ",\"machine\":");
    json_add_string(text, names.machine);
    text_add(text, ",\"cpu\":");
    json_add_string(text, model ? model : names.machine);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    text_add(text, ",\"cores\":%ld,\"memory_bytes\":", cores > 0 ? cores : 1);
    tell_memory(text, root);
    text_add(text, ",\"governor\":");
    tell_governor(text, root);
    text_add(text, ",\"python\":null}");
    free(model);
}

/* ------------------------------------------------------------------------------------------------------------- clocks */

void find_clocks(const char *root) {
    paths_free(&clocks);
    clocks = find_paths(root, CORES "cpufreq/scaling_cur_freq");
}

bool fastest_khz(int64_t *khz) {
    bool found = false;
    int64_t one;
    for (size_t i = 0; i < clocks.count; i++) {
        if (!read_number_file(clocks.paths[i], &one) || one < 0) continue;
        if (!found || one > *khz) *khz = one;
        found = true;
    }
    return found;
}

static void tell_frequencies(Text *text) {
    int64_t one;
    size_t told = 0;
    for (size_t i = 0; i < clocks.count; i++) {
        if (read_number_file(clocks.paths[i], &one) && one >= 0) text_add(text, "%s%lld", told++ ? "," : "[", (long long)one);
    }
    text_add(text, told ? "]" : "null");
}

/* --------------------------------------------------------------------------------------------------- load, heat, limits */

static void tell_load(Text *text, const char *root) {
    char *path = format_text("%s/proc/loadavg", root), *line = read_line(path), *end = line;
    double load = line ? strtod(line, &end) : 0;
    if (line != NULL && end != line) json_add_number(text, load);
    else text_add(text, "null");
    free(line);
    free(path);
}

static void tell_temperature(Text *text, const char *root) {
    Paths zones = find_paths(root, "sys/class/thermal/thermal_zone*/temp");
    int64_t hottest = 0, one;
    bool found = false;
    for (size_t i = 0; i < zones.count; i++) {
        if (!read_number_file(zones.paths[i], &one)) continue;
        if (!found || one > hottest) hottest = one;
        found = true;
    }
    if (found) json_add_number(text, (double)hottest / 1000);
    else text_add(text, "null");
    paths_free(&zones);
}

static void tell_throttled(Text *text, const char *root) {
    Paths counts = find_paths(root, CORES "thermal_throttle/core_throttle_count");
    int64_t sum = 0, one;
    bool found = false;
    for (size_t i = 0; i < counts.count; i++) {
        if (!read_number_file(counts.paths[i], &one) || one < 0 || one > INT64_MAX - sum) continue;
        sum += one;
        found = true;
    }
    if (found) text_add(text, "%lld", (long long)sum);
    else text_add(text, "null");
    paths_free(&counts);
}

void tell_conditions(Text *text, const char *root) {
    int status;
    text_add(text, "\"load_1min\":");
    tell_load(text, root);
    text_add(text, ",\"frequencies_khz\":");
    tell_frequencies(text);
    text_add(text, ",\"temperature_c\":");
    tell_temperature(text, root);
    text_add(text, ",\"throttled\":");
    tell_throttled(text, root);
    if (android_thermal_status(root, &status)) text_add(text, ",\"thermal_status\":%d", status);
    else text_add(text, ",\"thermal_status\":null");
}

/* -------------------------------------------------------------------------------------------------------------- cores */

static bool refused(const int64_t *cpus, size_t count, const char *why, Reason *reason) {
    Text list = {0};
    for (size_t i = 0; i < count; i++) text_add(&list, "%s%lld", i ? ", " : "", (long long)cpus[i]);
    fail(reason, "the runner cannot be pinned to cpus %s: %s", list.data ? list.data : "(none)", why);
    text_free(&list);
    return false;
}

bool pin_to(const int64_t *cpus, size_t count, Reason *reason) {
    cpu_set_t wanted, held;
    CPU_ZERO(&wanted);
    CPU_ZERO(&held);
    for (size_t i = 0; i < count; i++) {
        if (cpus[i] < 0 || cpus[i] >= CPU_SETSIZE) return refused(cpus, count, "there is no such core", reason);
        CPU_SET((size_t)cpus[i], &wanted);
    }
    if (sched_setaffinity(0, sizeof wanted, &wanted) != 0) return refused(cpus, count, strerror(errno), reason);
    if (sched_getaffinity(0, sizeof held, &held) != 0) return refused(cpus, count, strerror(errno), reason);
    return CPU_EQUAL(&wanted, &held) || refused(cpus, count, "not all of them are online and ours", reason);
}

void tell_affinity(Text *text) {
    cpu_set_t held;
    CPU_ZERO(&held);
    bool known = sched_getaffinity(0, sizeof held, &held) == 0;
    text_add(text, known ? "[" : "null");
    for (size_t i = 0, told = 0; known && i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &held)) text_add(text, "%s%zu", told++ ? "," : "", i);
    }
    if (known) text_add(text, "]");
}
