#include "inputs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char MARK[] = "INPUTS 1";

enum { WORD = 8, ENTRY = 2 * WORD, FOOTER = 2 * WORD };

/* An input that the file has values for. */
typedef struct {
    uint64_t place, bytes, begin; /* begin: in the file */
} Given;

typedef struct {
    size_t count;
    Given *given;
    uint64_t model_bytes;
} Behind;

/* A number as files have it, its lowest byte first. */
static uint64_t number_at(const unsigned char *bytes) {
    uint64_t number = 0;
    for (size_t i = WORD; i-- > 0;) number = number << 8 | bytes[i];
    return number;
}

static bool read_at(FILE *file, uint64_t begin, void *bytes, size_t count) {
    return fseeko(file, (off_t)begin, SEEK_SET) == 0 && fread(bytes, 1, count, file) == count;
}

static bool read_entries(FILE *file, uint64_t end, uint64_t count, Behind *behind, Reason *reason) {
    unsigned char entry[ENTRY];
    behind->given = allocate((size_t)count, sizeof *behind->given);
    behind->count = (size_t)count;
    behind->model_bytes = end;
    for (size_t i = behind->count; i-- > 0;) { /* from the last one, for their values end where the entries begin */
        Given *given = &behind->given[i];
        if (!read_at(file, end + i * ENTRY, entry, ENTRY)) return fail(reason, "the file of the model cannot be read: %s", strerror(errno));
        *given = (Given){.place = number_at(entry), .bytes = number_at(entry + WORD)};
        if (given->bytes > behind->model_bytes) return fail(reason, "the values of inputs do not fit into the file");
        behind->model_bytes -= given->bytes;
        given->begin = behind->model_bytes;
    }
    return true;
}

static bool read_behind(FILE *file, Behind *behind, Reason *reason) {
    unsigned char footer[FOOTER];
    bool sought = fseeko(file, 0, SEEK_END) == 0;
    off_t size = ftello(file);
    if (!sought || size < 0) return fail(reason, "the file of the model cannot be read: %s", strerror(errno));
    behind->model_bytes = (uint64_t)size;
    if (size < FOOTER) return true;
    uint64_t end = (uint64_t)size - FOOTER;
    if (!read_at(file, end, footer, FOOTER)) return fail(reason, "the file of the model cannot be read: %s", strerror(errno));
    if (memcmp(footer + WORD, MARK, WORD) != 0) return true;
    uint64_t count = number_at(footer);
    if (count > end / ENTRY) return fail(reason, "the file says that it has values for %llu inputs, which do not fit into it", (unsigned long long)count);
    return read_entries(file, end - count * ENTRY, count, behind, reason);
}

static bool fill(FILE *file, const Behind *behind, Tensor *tensor, const Opening *opening, uint64_t place, Reason *reason) {
    const Given *given = NULL;
    for (size_t i = 0; i < behind->count; i++) {
        if (behind->given[i].place == place) given = &behind->given[i];
    }
    if (given == NULL) {
        tensor_fill(tensor, opening->seed, place);
        return true;
    }
    size_t bytes = tensor->count * type_bytes(tensor->type);
    if (given->bytes != bytes) {
        return fail(reason, "the file has %llu bytes for input %llu, which has %zu", (unsigned long long)given->bytes, (unsigned long long)place, bytes);
    }
    return read_at(file, given->begin, tensor->data, bytes) || fail(reason, "the values of an input cannot be read: %s", strerror(errno));
}

bool inputs_fill(Tensor *tensor, const Opening *opening, uint64_t place, Reason *reason) {
    FILE *file = fopen(opening->path, "rb");
    if (file == NULL) return fail(reason, "%s cannot be read: %s", opening->path, strerror(errno));
    Behind behind = {0};
    bool fine = read_behind(file, &behind, reason) && fill(file, &behind, tensor, opening, place, reason);
    free(behind.given);
    fclose(file);
    return fine;
}

bool inputs_model_bytes(const char *path, size_t *bytes, Reason *reason) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return fail(reason, "%s cannot be read: %s", path, strerror(errno));
    Behind behind = {0};
    bool fine = read_behind(file, &behind, reason);
    *bytes = (size_t)behind.model_bytes;
    free(behind.given);
    fclose(file);
    return fine;
}
