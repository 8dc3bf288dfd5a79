#include "files.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 1 << 16 };
static const size_t LARGEST = (size_t)1 << 28; /* a job of a million measurements is a few dozen megabytes */

char *read_whole(const char *path, size_t *length, Reason *reason) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) return fail(reason, "%s cannot be read: %s", path, strerror(errno)), NULL;
    Text text = {0};
    char *block = allocate(BLOCK, 1);
    size_t count;
    do {
        count = fread(block, 1, BLOCK, file);
        text_add_bytes(&text, block, count);
    } while (count == BLOCK && text.length < LARGEST);
    bool fine = !ferror(file) || fail(reason, "%s cannot be read: %s", path, strerror(errno));
    if (fine && text.length >= LARGEST) fine = fail(reason, "%s is too large", path);
    fclose(file);
    free(block);
    if (!fine) text_free(&text);
    *length = text.length;
    return text.data;
}

char *read_line(const char *path) {
    size_t length;
    char *text = read_whole(path, &length, NULL);
    if (text == NULL) return NULL;
    while (length > 0 && isspace((unsigned char)text[length - 1])) text[--length] = '\0';
    size_t space = 0;
    while (isspace((unsigned char)text[space])) space++;
    memmove(text, text + space, length - space + 1);
    return text;
}

bool read_number_file(const char *path, int64_t *number) {
    char *text = read_line(path), *end = NULL;
    if (text == NULL) return false;
    errno = 0;
    *number = strtoll(text, &end, 10);
    bool fine = end != text && *end == '\0' && errno == 0;
    free(text);
    return fine;
}

/* ------------------------------------------------------------------------------------------------------------ finding */

/* By the letters, and by the numbers between them: cpu2 comes before cpu10. */
static int in_order(const void *first, const void *second) {
    const char *a = *(char *const *)first, *b = *(char *const *)second;
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            char *after_a, *after_b;
            unsigned long long one = strtoull(a, &after_a, 10), other = strtoull(b, &after_b, 10);
            if (one != other) return one < other ? -1 : 1;
            a = after_a;
            b = after_b;
        } else if (*a != *b) {
            break;
        } else {
            a++;
            b++;
        }
    }
    return (unsigned char)*a - (unsigned char)*b;
}

void paths_add(Paths *paths, char *path) {
    if (path == NULL || *path == '\0') {
        free(path);
        return;
    }
    paths->paths = reallocate(paths->paths, paths->count + 1, sizeof *paths->paths);
    paths->paths[paths->count++] = path;
}

void paths_sort(Paths *paths) {
    if (paths->count > 1) qsort(paths->paths, paths->count, sizeof *paths->paths, in_order);
}

static void find_in(Paths *found, const char *folder, const char *pattern) {
    const char *slash = strchr(pattern, '/');
    char *part = copy_text(pattern);
    if (slash != NULL) part[slash - pattern] = '\0';
    DIR *listing = opendir(folder);
    for (struct dirent *entry; listing != NULL && (entry = readdir(listing)) != NULL;) {
        if (fnmatch(part, entry->d_name, FNM_PERIOD) != 0) continue;
        char *path = format_text("%s/%s", folder, entry->d_name);
        if (slash != NULL) {
            find_in(found, path, slash + 1);
            free(path);
        } else {
            paths_add(found, path);
        }
    }
    if (listing != NULL) closedir(listing);
    free(part);
}

Paths find_paths(const char *root, const char *pattern) {
    Paths found = {0};
    find_in(&found, root, pattern);
    paths_sort(&found);
    return found;
}

void paths_free(Paths *paths) {
    for (size_t i = 0; i < paths->count; i++) free(paths->paths[i]);
    free(paths->paths);
    *paths = (Paths){0};
}

char *find_field(const char *root, const char *file, const char *name) {
    char *path = format_text("%s/%s", root, file), *text = read_line(path), *found = NULL, *rest = NULL;
    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line && !found; line = strtok_r(NULL, "\n", &rest)) {
        char *colon = strchr(line, ':');
        if (colon == NULL) continue;
        size_t length = (size_t)(colon - line);
        while (length > 0 && isspace((unsigned char)line[length - 1])) length--;
        if (strlen(name) == length && strncmp(line, name, length) == 0) found = copy_text(colon + 1 + strspn(colon + 1, " \t"));
    }
    free(text);
    free(path);
    return found;
}

/* ------------------------------------------------------------------------------------------------------------ folders */

char *make_folder(const char *template, Reason *reason) {
    char *folder = copy_text(template);
    if (mkdtemp(folder) != NULL) return folder;
    fail(reason, "the folder %s cannot be made: %s", template, strerror(errno));
    free(folder);
    return NULL;
}

void remove_folder(const char *folder) {
    if (folder == NULL) return;
    Paths files = find_paths(folder, "*");
    for (size_t i = 0; i < files.count; i++) unlink(files.paths[i]);
    paths_free(&files);
    rmdir(folder);
}
