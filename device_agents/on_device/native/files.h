/* Small files: their whole content, or one line of a file of the kernel's. */
#ifndef NATIVE_FILES_H
#define NATIVE_FILES_H

#include "base.h"

/* The whole file, with a zero byte after it; NULL and the reason if it cannot be read. The caller frees it. */
char *read_whole(const char *path, size_t *length, Reason *reason);
/* The content of a small file, without the space around it; NULL if it cannot be read. The caller frees it. */
char *read_line(const char *path);
/* The same as a whole number; false if it is none. */
bool read_number_file(const char *path, int64_t *number);

/* Make a folder of a name that nothing has yet: the template's, whose six X at the end are replaced. NULL and the reason. The caller
   frees it. */
char *make_folder(const char *template, Reason *reason);
/* Remove a folder and the files in it; NULL is none. */
void remove_folder(const char *folder);

/* Paths that match a pattern of the shell, sorted by the numbers in them. */
typedef struct {
    size_t count;
    char **paths;
} Paths;

/* Of a path below the root, as `sys/class/thermal/thermal_zone*`. */
Paths find_paths(const char *root, const char *pattern);
/* Takes the text over; NULL and empty ones are left out. */
void paths_add(Paths *paths, char *path);
void paths_sort(Paths *paths);
void paths_free(Paths *paths);
/* The value of a line `name: value` in a file as the kernel writes it; NULL where there is none. The caller frees it. */
char *find_field(const char *root, const char *file, const char *name);

#endif
