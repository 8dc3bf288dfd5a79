#include "tensor.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "json.h"

const char *type_name(ElementType type) {
    static const char *const names[] = {"unknown", "float16", "bfloat16", "float32", "float64", "int8",   "int16",
                                        "int32",   "int64",   "uint8",    "uint16",  "uint32",  "uint64", "bool"};
    return names[type];
}

size_t type_bytes(ElementType type) {
    static const size_t bytes[] = {0, 2, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1};
    return bytes[type];
}

bool tensor_measure(Tensor *tensor, Reason *reason) {
    tensor->count = 1;
    for (size_t i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] < 0) return fail(reason, "input of dynamic shape: dimension %zu of %zu is open", i + 1, tensor->rank);
        uint64_t length = (uint64_t)tensor->shape[i];
        if (length != 0 && tensor->count > SIZE_MAX / 8 / length) return fail(reason, "an input is too large for this device");
        tensor->count *= (size_t)length;
    }
    if (tensor->type != NO_TYPE) return true;
    return fail(reason, "input of text or another type that cannot be made up; "
                        "give the part of the network that works on numbers alone");
}

/* ------------------------------------------------------------------------------------------------------------- inputs */

static uint64_t mixed(uint64_t z) {
    z ^= z >> 30;
    z *= 0xBF58476D1CE4E5B9u;
    z ^= z >> 27;
    z *= 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Only for the multiples of 2^-23 in [-1, 1): rounds to the nearest, ties to even, and never overflows. */
static uint16_t half_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000, mantissa = (bits & 0x7FFFFF) | 0x800000;
    int exponent = (int)(bits >> 23 & 0xFF) - 112;
    if (exponent < -10) return (uint16_t)sign;
    int shift = exponent > 0 ? 13 : 14 - exponent;
    uint32_t rest = mantissa & ((1u << shift) - 1), tie = 1u << (shift - 1), kept = mantissa >> shift;
    kept += rest > tie || (rest == tie && (kept & 1));
    /* a normal number's leading one adds one to the exponent's field, hence one less here; a carry goes there by itself */
    return (uint16_t)(sign | (kept + (exponent > 0 ? (uint32_t)(exponent - 1) << 10 : 0)));
}

static uint16_t brain_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static void put(Tensor *tensor, size_t i, uint64_t z) {
    float real = (float)(z >> 40) / 8388608.0f - 1.0f;
    unsigned whole = (unsigned)(z >> 61), index = (unsigned)(z >> 63);
    switch (tensor->type) {
    case FLOAT16: ((uint16_t *)tensor->data)[i] = half_of(real); break;
    case BFLOAT16: ((uint16_t *)tensor->data)[i] = brain_of(real); break;
    case FLOAT32: ((float *)tensor->data)[i] = real; break;
    case FLOAT64: ((double *)tensor->data)[i] = real; break;
    case INT8:
    case UINT8: ((uint8_t *)tensor->data)[i] = (uint8_t)whole; break;
    case INT16:
    case UINT16: ((uint16_t *)tensor->data)[i] = (uint16_t)whole; break;
    case INT32:
    case UINT32: ((uint32_t *)tensor->data)[i] = index; break;
    case INT64:
    case UINT64: ((uint64_t *)tensor->data)[i] = index; break;
    case BOOLEAN: ((uint8_t *)tensor->data)[i] = (uint8_t)(z >> 63); break;
    case NO_TYPE: break;
    }
}

void tensor_fill(Tensor *tensor, uint64_t seed, uint64_t index) {
    for (size_t i = 0; i < tensor->count; i++) {
        uint64_t place = (index << 40) + i + 1;
        put(tensor, i, mixed(seed * 0x9E3779B97F4A7C15u + place * 0xD1342543DE82EF95u));
    }
}

/* ------------------------------------------------------------------------------------------------------------ outputs */

static double half_value(uint16_t bits) {
    int exponent = bits >> 10 & 31;
    double mantissa = bits & 1023;
    double size = exponent == 31  ? (mantissa != 0 ? NAN : INFINITY)
                  : exponent == 0 ? ldexp(mantissa, -24)
                                  : ldexp(1024 + mantissa, exponent - 25);
    return bits >> 15 ? -size : size;
}

static double brain_value(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static bool is_real(ElementType type) {
    return type == FLOAT16 || type == BFLOAT16 || type == FLOAT32 || type == FLOAT64;
}

static double real_at(const Tensor *tensor, size_t i) {
    switch (tensor->type) {
    case FLOAT16: return half_value(((const uint16_t *)tensor->data)[i]);
    case BFLOAT16: return brain_value(((const uint16_t *)tensor->data)[i]);
    case FLOAT32: return ((const float *)tensor->data)[i];
    default: return ((const double *)tensor->data)[i];
    }
}

static int64_t whole_at(const Tensor *tensor, size_t i) {
    switch (tensor->type) {
    case INT8: return ((const int8_t *)tensor->data)[i];
    case INT16: return ((const int16_t *)tensor->data)[i];
    case INT32: return ((const int32_t *)tensor->data)[i];
    case UINT8:
    case BOOLEAN: return ((const uint8_t *)tensor->data)[i];
    case UINT16: return ((const uint16_t *)tensor->data)[i];
    case UINT32: return ((const uint32_t *)tensor->data)[i];
    default: return ((const int64_t *)tensor->data)[i];
    }
}

bool tensor_is_finite(const Tensor *tensor) {
    for (size_t i = 0; is_real(tensor->type) && i < tensor->count; i++) {
        if (!isfinite(real_at(tensor, i))) return false;
    }
    return true;
}

static void tell_value(Text *text, const Tensor *tensor, size_t i) {
    if (is_real(tensor->type)) {
        json_add_number(text, real_at(tensor, i));
    } else if (tensor->type == UINT64) {
        text_add(text, "%" PRIu64, ((const uint64_t *)tensor->data)[i]);
    } else {
        text_add(text, "%" PRId64, whole_at(tensor, i));
    }
}

void tensor_tell(Text *text, const Tensor *tensor, size_t most) {
    text_add(text, "{\"shape\":[");
    for (size_t i = 0; i < tensor->rank; i++) text_add(text, "%s%" PRId64, i ? "," : "", tensor->shape[i]);
    text_add(text, "],\"type\":\"%s\",\"values\":[", type_name(tensor->type));
    for (size_t i = 0; tensor->type != NO_TYPE && i < tensor->count && i < most; i++) {
        if (i) text_add(text, ",");
        tell_value(text, tensor, i);
    }
    text_add(text, "]}");
}
