#include "json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 32 };

typedef struct {
    const char *at, *end;
    Reason *reason;
} Reader;

static bool read_value(Reader *reader, Json *into, int depth);

/* ------------------------------------------------------------------------------------------------------------- reading */

static void skip_space(Reader *reader) {
    while (reader->at < reader->end && strchr(" \t\r\n", *reader->at) != NULL && *reader->at != '\0') reader->at++;
}

static bool next_is(Reader *reader, char wanted) {
    skip_space(reader);
    if (reader->at >= reader->end || *reader->at != wanted) return false;
    reader->at++;
    return true;
}

static bool read_word(Reader *reader, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0) {
        return fail(reader->reason, "it is no JSON");
    }
    reader->at += length;
    return true;
}

static void add_utf8(Text *text, uint32_t code) {
    char bytes[4];
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0x00, 0xC0, 0xE0, 0xF0};
    for (size_t i = length; i-- > 1; code >>= 6) bytes[i] = (char)(0x80 | (code & 0x3F));
    bytes[0] = (char)(lead[length] | code);
    text_add_bytes(text, bytes, length);
}

static bool read_hex(Reader *reader, uint32_t *code) {
    if (reader->end - reader->at < 4) return fail(reader->reason, "a string in it does not end");
    *code = 0;
    for (int i = 0; i < 4; i++) {
        char c = *reader->at++;
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return fail(reader->reason, "a string in it has a bad \\u escape");
        *code = *code * 16 + digit;
    }
    return true;
}

/* After the \u of an escape; two of them may make one character. A lone half becomes U+FFFD. */
static bool read_unicode(Reader *reader, Text *text) {
    uint32_t code, low;
    if (!read_hex(reader, &code)) return false;
    if (code >= 0xD800 && code < 0xDC00 && reader->end - reader->at >= 6 && memcmp(reader->at, "\\u", 2) == 0) {
        Reader ahead = {reader->at + 2, reader->end, reader->reason};
        if (!read_hex(&ahead, &low)) return false;
        if (low >= 0xDC00 && low < 0xE000) {
            reader->at = ahead.at;
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
    if (code == 0) return fail(reader->reason, "a string in it holds a zero character");
    add_utf8(text, code);
    return true;
}

static bool read_escape(Reader *reader, Text *text) {
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (reader->at >= reader->end) return fail(reader->reason, "a string in it does not end");
    char c = *reader->at++;
    if (c == 'u') return read_unicode(reader, text);
    const char *found = c == '\0' ? NULL : strchr(names, c);
    if (found == NULL) return fail(reader->reason, "a string in it has a bad escape");
    text_add_bytes(text, &meant[found - names], 1);
    return true;
}

static bool read_characters(Reader *reader, Text *text) {
    while (reader->at < reader->end && *reader->at != '"') {
        unsigned char c = (unsigned char)*reader->at;
        if (c < 0x20) return fail(reader->reason, "a string in it holds a control character");
        reader->at++;
        if (c != '\\') {
            text_add_bytes(text, (const char *)&c, 1);
        } else if (!read_escape(reader, text)) {
            return false;
        }
    }
    return true;
}

static bool read_string(Reader *reader, char **into) {
    if (!next_is(reader, '"')) return fail(reader->reason, "it is no JSON");
    Text text = {0};
    text_add_bytes(&text, "", 0);
    bool fine = read_characters(reader, &text);
    if (fine && !next_is(reader, '"')) fine = fail(reader->reason, "a string in it does not end");
    if (!fine) {
        text_free(&text);
        return false;
    }
    *into = text.data;
    return true;
}

static size_t digits(const char *text) {
    return strspn(text, "0123456789");
}

/* The length of the number at the beginning of a zero-ended text, 0 if there is none; `whole` if it has no fraction or exponent. */
static size_t number_length(const char *text, bool *whole) {
    size_t at = text[0] == '-', count = digits(text + at);
    if (count == 0 || (count > 1 && text[at] == '0')) return 0;
    at += count;
    *whole = true;
    if (text[at] == '.') {
        if ((count = digits(text + at + 1)) == 0) return 0;
        at += 1 + count;
        *whole = false;
    }
    if (text[at] == 'e' || text[at] == 'E') {
        at += 1 + (text[at + 1] == '+' || text[at + 1] == '-');
        if ((count = digits(text + at)) == 0) return 0;
        at += count;
        *whole = false;
    }
    return at;
}

static bool read_number(Reader *reader, Json *into) {
    char copy[64];
    size_t length = 0, left = (size_t)(reader->end - reader->at);
    while (length < left && length < sizeof copy - 1 && strchr("+-.0123456789eE", reader->at[length]) != NULL && reader->at[length]) {
        copy[length] = reader->at[length];
        length++;
    }
    copy[length] = '\0';
    if (length == sizeof copy - 1) return fail(reader->reason, "a number in it is too long");
    if (length == 0 || number_length(copy, &into->whole) != length) return fail(reader->reason, "it is no JSON");
    into->kind = JSON_NUMBER;
    into->number = strtod(copy, NULL);
    errno = 0;
    into->integer = into->whole ? strtoll(copy, NULL, 10) : 0;
    into->whole = into->whole && errno == 0;
    reader->at += length;
    return true;
}

/* The members of a list or an object, until its closing bracket. */
static bool read_members(Reader *reader, Json *into, char closing, int depth) {
    Json **last = &into->first;
    if (next_is(reader, closing)) return true;
    do {
        Json *member = *last = allocate(1, sizeof *member);
        last = &member->next;
        into->count++;
        if (into->kind == JSON_OBJECT) {
            if (!read_string(reader, &member->name)) return false;
            if (!next_is(reader, ':')) return fail(reader->reason, "it is no JSON");
        }
        if (!read_value(reader, member, depth)) return false;
    } while (next_is(reader, ','));
    return next_is(reader, closing) || fail(reader->reason, "it is no JSON");
}

static bool read_value(Reader *reader, Json *into, int depth) {
    if (depth > DEEPEST) return fail(reader->reason, "it is nested deeper than %d", DEEPEST);
    skip_space(reader);
    switch (reader->at < reader->end ? *reader->at : '\0') {
    case '{':
        into->kind = JSON_OBJECT;
        reader->at++;
        return read_members(reader, into, '}', depth + 1);
    case '[':
        into->kind = JSON_LIST;
        reader->at++;
        return read_members(reader, into, ']', depth + 1);
    case '"':
        into->kind = JSON_STRING;
        return read_string(reader, &into->string);
    case 'n':
        return read_word(reader, "null");
    case 't':
    case 'f':
        into->kind = JSON_BOOL;
        into->boolean = *reader->at == 't';
        return read_word(reader, into->boolean ? "true" : "false");
    default:
        return read_number(reader, into);
    }
}

Json *json_parse(const char *text, size_t length, Reason *reason) {
    Reader reader = {text, text + length, reason};
    Json *value = allocate(1, sizeof *value);
    bool fine = read_value(&reader, value, 0);
    skip_space(&reader);
    if (fine && reader.at != reader.end) fine = fail(reason, "something follows its end");
    if (fine) return value;
    json_free(value);
    return NULL;
}

void json_free(Json *value) {
    while (value != NULL) {
        Json *next = value->next;
        json_free(value->first);
        free(value->name);
        free(value->string);
        free(value);
        value = next;
    }
}

const Json *json_member(const Json *object, const char *name) {
    const Json *found = NULL;
    if (object == NULL || object->kind != JSON_OBJECT) return NULL;
    for (const Json *member = object->first; member != NULL; member = member->next) {
        if (strcmp(member->name, name) == 0) found = member;
    }
    return found;
}

/* ------------------------------------------------------------------------------------------------------------- writing */

/* The length of the UTF-8 character at the beginning of a zero-ended text, 0 if it is none. */
static size_t utf8_length(const unsigned char *text) {
    size_t length = text[0] < 0x80 ? 1 : text[0] < 0xC2 ? 0 : text[0] < 0xE0 ? 2 : text[0] < 0xF0 ? 3 : text[0] < 0xF5 ? 4 : 0;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80) return 0;
    }
    bool overlong = (text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xF0 && text[1] < 0x90);
    bool beyond = (text[0] == 0xED && text[1] > 0x9F) || (text[0] == 0xF4 && text[1] > 0x8F);
    return overlong || beyond ? 0 : length;
}

void json_add_string(Text *text, const char *string) {
    text_add_bytes(text, "\"", 1);
    for (const unsigned char *at = (const unsigned char *)string; *at;) {
        size_t length = utf8_length(at);
        if (*at == '"' || *at == '\\') {
            text_add(text, "\\%c", *at);
        } else if (*at < 0x20) {
            text_add(text, "\\u%04x", *at);
        } else if (length == 0) {
            text_add(text, "\\ufffd");
        } else {
            text_add_bytes(text, (const char *)at, length);
        }
        at += length ? length : 1;
    }
    text_add_bytes(text, "\"", 1);
}

void json_add_number(Text *text, double number) {
    char shortest[40];
    if (!isfinite(number)) {
        text_add(text, "null");
        return;
    }
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(shortest, sizeof shortest, "%.*g", precision, number);
        if (strtod(shortest, NULL) == number) break;
    }
    text_add(text, "%s", shortest);
}

static void add_members(Text *text, const Json *value) {
    for (const Json *member = value->first; member != NULL; member = member->next) {
        if (member != value->first) text_add(text, ",");
        if (member->name != NULL) {
            json_add_string(text, member->name);
            text_add(text, ":");
        }
        json_add(text, member);
    }
}

void json_add(Text *text, const Json *value) {
    switch (value->kind) {
    case JSON_NULL:
        text_add(text, "null");
        return;
    case JSON_BOOL:
        text_add(text, value->boolean ? "true" : "false");
        return;
    case JSON_NUMBER:
        if (value->whole) text_add(text, "%lld", (long long)value->integer);
        else json_add_number(text, value->number);
        return;
    case JSON_STRING:
        json_add_string(text, value->string);
        return;
    case JSON_LIST:
        text_add(text, "[");
        add_members(text, value);
        text_add(text, "]");
        return;
    case JSON_OBJECT:
        text_add(text, "{");
        add_members(text, value);
        text_add(text, "}");
        return;
    }
}
