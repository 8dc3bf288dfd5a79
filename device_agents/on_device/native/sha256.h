/* SHA-256 (FIPS 180-4) of files. */
#ifndef NATIVE_SHA256_H
#define NATIVE_SHA256_H

#include <stdbool.h>

/* 64 hexadecimal digits and a zero byte; false if the file cannot be read. */
bool sha256_file(const char *path, char hex[65]);

#endif
