#include "energy.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"

enum { SAMPLE_NS = 10000000 };

/* A counter of a package, or a rail of the board. */
typedef struct {
    char *name;
    char *energy_uj;         /* of a package */
    char *volts, *amperes;   /* of a rail: files in mV and mA */
    char *power;             /* of a rail of an older board: a file in mW */
    int64_t range_uj, before_uj;
} Meter;

struct Energy {
    char *name;
    bool counts; /* counters, not power */
    Meter *meters;
    size_t count;
    int64_t began_ns;
    pthread_t thread;
    pthread_mutex_t mutex; /* over what follows */
    bool stop;
    double microwatts, microjoules;
    int64_t at_ns;
};

static Meter *add_meter(Energy *energy) {
    energy->meters = reallocate(energy->meters, energy->count + 1, sizeof *energy->meters);
    energy->meters[energy->count] = (Meter){0};
    return &energy->meters[energy->count++];
}

/* The path with what follows its last slash replaced. */
static char *sibling(const char *path, const char *name) {
    return format_text("%.*s/%s", (int)(strrchr(path, '/') - path), path, name);
}

/* ----------------------------------------------------------------------------------------------------------- counters */

/* False if a package is there that cannot be read: a part would be taken for the whole. */
static bool find_packages(Energy *energy, const char *root) {
    Paths names = find_paths(root, "sys/class/powercap/intel-rapl:[0-9]*/name");
    bool fine = true;
    for (size_t i = 0; i < names.count; i++) {
        char *folder = strrchr(names.paths[i], ':'), *name = read_line(names.paths[i]);
        bool whole = name != NULL && strncmp(name, "package", 7) == 0 && strchr(folder, '/') == strrchr(folder, '/');
        if (whole) {
            Meter *meter = add_meter(energy);
            char *range = sibling(names.paths[i], "max_energy_range_uj");
            meter->energy_uj = sibling(names.paths[i], "energy_uj");
            fine = read_number_file(meter->energy_uj, &meter->before_uj) && read_number_file(range, &meter->range_uj) && fine;
            free(range);
        }
        free(name);
    }
    paths_free(&names);
    return fine && energy->count > 0;
}

static int64_t counted(Energy *energy) {
    int64_t sum = 0, now;
    for (size_t i = 0; i < energy->count; i++) {
        Meter *meter = &energy->meters[i];
        if (!read_number_file(meter->energy_uj, &now)) die("the energy counter %s cannot be read any more", meter->energy_uj);
        sum += now - meter->before_uj + (now < meter->before_uj ? meter->range_uj : 0);
        meter->before_uj = now;
    }
    return sum;
}

/* -------------------------------------------------------------------------------------------------------------- rails */

static bool rail_microwatts(const Meter *rail, double *microwatts) {
    int64_t first, second = 0;
    if (rail->power != NULL) {
        if (!read_number_file(rail->power, &first)) return false;
        *microwatts = (double)first * 1000;
        return true;
    }
    if (!read_number_file(rail->volts, &first) || !read_number_file(rail->amperes, &second)) return false;
    *microwatts = (double)first * (double)second;
    return true;
}

/* A file `in3_label` or `rail_name_3` holds the name of the rail; its number is that of the files with the values. */
static void add_rail(Energy *energy, const char *path, bool older) {
    const char *file = strrchr(path, '/') + 1, *digits = file + strcspn(file, "0123456789");
    long channel = strtol(digits, NULL, 10);
    char *name = read_line(path);
    double microwatts;
    if (name == NULL || strcmp(name, "NC") == 0 || channel == 7 || channel < 0) {
        free(name);
        return;
    }
    Meter *rail = add_meter(energy);
    char *power = format_text("in_power%ld_input", channel), *volts = format_text("in%ld_input", channel);
    char *amperes = format_text("curr%ld_input", channel);
    rail->name = name;
    rail->power = older ? sibling(path, power) : NULL;
    rail->volts = sibling(path, volts);
    rail->amperes = sibling(path, amperes);
    free(power);
    free(volts);
    free(amperes);
    if (!rail_microwatts(rail, &microwatts)) energy->count--;
}

static void name_rails(Energy *energy) {
    Text text = {0};
    for (size_t i = 0; i < energy->count; i++) text_add(&text, "%s%s", i ? ", " : "ina3221: ", energy->meters[i].name);
    energy->name = text.data;
}

/* The rail of the whole board alone, where there is one. */
static void keep_the_whole(Energy *energy) {
    for (size_t i = 0; i < energy->count; i++) {
        const char *name = energy->meters[i].name;
        if (strcmp(name, "VDD_IN") == 0 || strcmp(name, "POM_5V_IN") == 0) {
            energy->meters[0] = energy->meters[i];
            energy->count = 1;
        }
    }
}

static bool find_rails(Energy *energy, const char *root) {
    static const char *const LABELS[] = {"sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in[0-9]*_label",
                                         "sys/bus/i2c/drivers/ina3221*/*/iio:device*/rail_name_[0-9]*"};
    for (int older = 0; older < 2 && energy->count == 0; older++) {
        Paths labels = find_paths(root, LABELS[older]);
        for (size_t i = 0; i < labels.count; i++) add_rail(energy, labels.paths[i], older);
        paths_free(&labels);
    }
    keep_the_whole(energy);
    name_rails(energy);
    return energy->count > 0;
}

static double board_microwatts(const Energy *energy) {
    double sum = 0, one;
    for (size_t i = 0; i < energy->count; i++) {
        if (!rail_microwatts(&energy->meters[i], &one)) die("the power of the energy rail %s cannot be read any more", energy->meters[i].name);
        sum += one;
    }
    return sum;
}

/* One trapezoid: from the last sample to this one. */
static void integrate(Energy *energy) {
    double microwatts = board_microwatts(energy);
    int64_t now = clock_ns();
    energy->microjoules += (energy->microwatts + microwatts) / 2 * (double)(now - energy->at_ns) / 1e9;
    energy->microwatts = microwatts;
    energy->at_ns = now;
}

static void *watch(void *argument) {
    Energy *energy = argument;
    for (bool stop = false; !stop;) {
        sleep_ns(SAMPLE_NS);
        pthread_mutex_lock(&energy->mutex);
        stop = energy->stop;
        if (!stop) integrate(energy);
        pthread_mutex_unlock(&energy->mutex);
    }
    return NULL;
}

/* What was spent until now; the thread, which may be asleep, is waited for only after that. */
static int64_t integrated(Energy *energy) {
    pthread_mutex_lock(&energy->mutex);
    integrate(energy);
    energy->stop = true;
    pthread_mutex_unlock(&energy->mutex);
    pthread_join(energy->thread, NULL);
    return (int64_t)energy->microjoules;
}

/* --------------------------------------------------------------------------------------------------------------- both */

Energy *energy_find(const char *root) {
    Energy *energy = allocate(1, sizeof *energy);
    pthread_mutex_init(&energy->mutex, NULL);
    if (find_packages(energy, root)) {
        energy->counts = true;
        energy->name = copy_text("rapl");
        return energy;
    }
    energy->count = 0;
    if (find_rails(energy, root)) return energy;
    free(energy->name);
    free(energy->meters);
    free(energy);
    return NULL;
}

const char *energy_name(const Energy *energy) {
    return energy->name;
}

void energy_begin(Energy *energy) {
    if (energy->counts) {
        counted(energy);
        energy->began_ns = clock_ns();
        return;
    }
    energy->microjoules = 0;
    energy->microwatts = board_microwatts(energy);
    energy->began_ns = energy->at_ns = clock_ns();
    energy->stop = false;
    if (pthread_create(&energy->thread, NULL, watch, energy) != 0) die("no thread to watch the energy can be started");
}

Spent energy_end(Energy *energy) {
    Spent spent;
    spent.energy_uj = energy->counts ? counted(energy) : integrated(energy);
    spent.duration_ns = (energy->counts ? clock_ns() : energy->at_ns) - energy->began_ns;
    return spent;
}
