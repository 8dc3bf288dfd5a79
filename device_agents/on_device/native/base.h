/* What every part needs: memory that is there or the runner ends, growing text, short reasons, the clock. */
#ifndef NATIVE_BASE_H
#define NATIVE_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
#define NO_RETURN __attribute__((noreturn))
#else
#define PRINTF_LIKE(text, first)
#define NO_RETURN
#endif

/* End the runner with a message on standard error and exit code 1. */
NO_RETURN void die(const char *format, ...) PRINTF_LIKE(1, 2);

/* Zeroed memory for `count` things of `size` bytes, never NULL; ends the runner where there is none. */
void *allocate(size_t count, size_t size);
void *reallocate(void *memory, size_t count, size_t size);
char *copy_text(const char *text);
/* As printf; the caller frees it. */
char *format_text(const char *format, ...) PRINTF_LIKE(1, 2);

/* Text that grows; always ends with a zero byte once something was added. */
typedef struct {
    char *data;
    size_t length, capacity;
} Text;

void text_add_bytes(Text *text, const char *bytes, size_t length);
void text_add(Text *text, const char *format, ...) PRINTF_LIKE(2, 3);
/* Append bytes in base64 (RFC 4648). */
void text_add_base64(Text *text, const char *bytes, size_t length);
void text_free(Text *text);

/* Why something failed, cut off where it is too long for a line. */
typedef struct {
    char text[500];
} Reason;

/* Fill in the reason (which may be NULL); always false, so that `return fail(...)` reads well. */
bool fail(Reason *reason, const char *format, ...) PRINTF_LIKE(2, 3);

/* Nanoseconds of a clock that no time server steps or slews. */
int64_t clock_ns(void);
/* Sleep; a signal does not cut it short. */
void sleep_ns(int64_t duration_ns);

#endif
