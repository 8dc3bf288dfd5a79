/* JSON: reading a file that may be anything at all, and writing lines. */
#ifndef NATIVE_JSON_H
#define NATIVE_JSON_H

#include "base.h"

typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_LIST, JSON_OBJECT } JsonKind;

/* A value, and, where it is in a list or an object, the next one there. */
typedef struct Json {
    JsonKind kind;
    char *name; /* in an object, else NULL */
    bool boolean;
    bool whole; /* a number without fraction or exponent that fits into `integer` */
    int64_t integer;
    double number;
    char *string;
    size_t count;
    struct Json *first, *next;
} Json;

/* NULL and a reason if the text is no JSON, or nested deeper than 32. */
Json *json_parse(const char *text, size_t length, Reason *reason);
void json_free(Json *value);
/* A member of an object; NULL if there is none, or `object` is none. The last of equal names counts, as in Python. */
const Json *json_member(const Json *object, const char *name);

/* Append a string in quotes. Bytes that are no UTF-8 become U+FFFD. */
void json_add_string(Text *text, const char *string);
/* Append the shortest number that reads back as the same double; null where there is none (not finite). */
void json_add_number(Text *text, double number);
/* Append any value. */
void json_add(Text *text, const Json *value);

#endif
