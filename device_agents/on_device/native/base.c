#include "base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Not by the functions below, which end here themselves. One line, whatever is in it. */
void die(const char *format, ...) {
    char message[2000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    for (char *at = message; *at; at++) {
        if (*at == '\n' || *at == '\r') *at = ' ';
    }
    fprintf(stderr, "%s\n", message);
    exit(1);
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (memory == NULL) die("there is no memory left for %zu times %zu bytes", count, size);
    return memory;
}

void *reallocate(void *memory, size_t count, size_t size) {
    if (size != 0 && count > SIZE_MAX / size) die("%zu times %zu bytes are more than there can be", count, size);
    size_t bytes = count * size;
    void *moved = realloc(memory, bytes > 0 ? bytes : 1);
    if (moved == NULL) die("there is no memory left for %zu times %zu bytes", count, size);
    return moved;
}

char *copy_text(const char *text) {
    size_t size = strlen(text) + 1;
    return memcpy(allocate(size, 1), text, size);
}

static void add_formatted(Text *text, const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (length < 0) die("text could not be formatted");
    char *formatted = allocate((size_t)length + 1, 1);
    vsnprintf(formatted, (size_t)length + 1, format, arguments);
    text_add_bytes(text, formatted, (size_t)length);
    free(formatted);
}

char *format_text(const char *format, ...) {
    Text text = {0};
    va_list arguments;
    va_start(arguments, format);
    add_formatted(&text, format, arguments);
    va_end(arguments);
    return text.data;
}

void text_add_bytes(Text *text, const char *bytes, size_t length) {
    if (length >= SIZE_MAX / 4 - text->length) die("a text became too long");
    if (text->length + length + 1 > text->capacity) {
        text->capacity = 2 * (text->length + length + 1);
        text->data = reallocate(text->data, text->capacity, 1);
    }
    if (length) memcpy(text->data + text->length, bytes, length);
    text->length += length;
    text->data[text->length] = '\0';
}

void text_add(Text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_formatted(text, format, arguments);
    va_end(arguments);
}

void text_add_base64(Text *text, const char *bytes, size_t length) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        uint32_t three = 0;
        for (size_t j = i; j < i + 3; j++) three = three << 8 | (j < length ? (unsigned char)bytes[j] : 0);
        char four[] = {digits[three >> 18], digits[three >> 12 & 63], digits[three >> 6 & 63], digits[three & 63]};
        if (i + 2 >= length) four[3] = '=';
        if (i + 1 >= length) four[2] = '=';
        text_add_bytes(text, four, 4);
    }
}

void text_free(Text *text) {
    free(text->data);
    *text = (Text){0};
}

bool fail(Reason *reason, const char *format, ...) {
    if (reason == NULL) return false;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason->text, sizeof reason->text, format, arguments);
    va_end(arguments);
    return false;
}

int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void sleep_ns(int64_t duration_ns) {
    if (duration_ns <= 0) return;
    struct timespec left = {.tv_sec = (time_t)(duration_ns / 1000000000), .tv_nsec = (long)(duration_ns % 1000000000)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}
