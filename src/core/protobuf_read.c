#include "core/protobuf_read.h"

#include <string.h>

enum { MAX_DEPTH = 64 };

static ek_status cut_off(void)
{
    return ek_fail(EK_E_FORMAT, "the file is damaged: a message ends in the middle of a field");
}

/* Seven bits a byte, the lowest first, at most ten bytes. Bits beyond the 64th are dropped, as everywhere. */
static ek_status varint(const unsigned char **at, const unsigned char *end, uint64_t *out)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (*at == end) return cut_off();
        unsigned char byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            return EK_OK;
        }
    }
    return ek_fail(EK_E_FORMAT, "the file is damaged: a number has more than ten bytes");
}

/* The lowest byte first, on any machine. */
static ek_status fixed(ek_wire *m, size_t size, ek_wire_field *field)
{
    if ((size_t)(m->end - m->at) < size) return cut_off();
    for (size_t i = 0; i < size; i++) field->bits |= (uint64_t)m->at[i] << 8 * i;
    field->data = m->at;
    field->size = size;
    m->at += size;
    return EK_OK;
}

ek_status ek_wire_next(ek_wire *m, ek_wire_field *field, bool *more)
{
    *more = m->at < m->end;
    if (!*more) return EK_OK;
    uint64_t tag, length;
    EK_TRY(varint(&m->at, m->end, &tag));
    *field = (ek_wire_field){.number = (int)(tag >> 3 & 0x1fffffff), .type = (ek_wire_type)(tag & 7)};
    if (field->number == 0 || tag >> 32)
        return ek_fail(EK_E_FORMAT, "the file is damaged: %llu is no field", (unsigned long long)(tag >> 3));
    switch (field->type) {
    case EK_WIRE_VARINT: return varint(&m->at, m->end, &field->bits);
    case EK_WIRE_FIXED64: return fixed(m, 8, field);
    case EK_WIRE_FIXED32: return fixed(m, 4, field);
    case EK_WIRE_BYTES:
        EK_TRY(varint(&m->at, m->end, &length));
        if (length > (size_t)(m->end - m->at)) return cut_off();
        field->data = m->at;
        field->size = (size_t)length;
        m->at += length;
        return EK_OK;
    }
    return ek_fail(EK_E_FORMAT, "the file is damaged: field %d has the type %d, which is not read",
                   field->number, (int)field->type);
}

static ek_status wrong_type(const ek_wire_field *field, const char *wanted)
{
    return ek_fail(EK_E_FORMAT, "the file is damaged: field %d is not %s", field->number, wanted);
}

ek_status ek_wire_enter(const ek_wire *outer, const ek_wire_field *field, ek_wire *inner)
{
    if (field->type != EK_WIRE_BYTES) return wrong_type(field, "a message");
    int depth = outer->depth + 1; /* inner may be outer */
    if (depth > MAX_DEPTH)
        return ek_fail(EK_E_FORMAT, "messages lie within each other more than %d deep", MAX_DEPTH);
    *inner = ek_wire_begin(field->data, field->size);
    inner->depth = depth;
    return EK_OK;
}

ek_status ek_wire_int(const ek_wire_field *field, int64_t *out)
{
    if (field->type != EK_WIRE_VARINT) return wrong_type(field, "a whole number");
    *out = (int64_t)field->bits;
    return EK_OK;
}

ek_status ek_wire_float(const ek_wire_field *field, float *out)
{
    if (field->type != EK_WIRE_FIXED32) return wrong_type(field, "a float");
    uint32_t bits = (uint32_t)field->bits;
    memcpy(out, &bits, sizeof bits);
    return EK_OK;
}

ek_status ek_wire_bytes(const ek_wire_field *field, const unsigned char **data, size_t *size)
{
    if (field->type != EK_WIRE_BYTES) return wrong_type(field, "bytes");
    *data = field->data;
    *size = field->size;
    return EK_OK;
}

ek_status ek_wire_count_ints(const ek_wire_field *field, size_t *count)
{
    *count = 1;
    if (field->type == EK_WIRE_VARINT) return EK_OK;
    if (field->type != EK_WIRE_BYTES) return wrong_type(field, "whole numbers");
    *count = 0; /* each ends with a byte below 128 */
    for (size_t i = 0; i < field->size; i++) *count += field->data[i] < 0x80;
    if (field->size && field->data[field->size - 1] >= 0x80) return cut_off();
    return EK_OK;
}

ek_status ek_wire_take_ints(const ek_wire_field *field, int64_t *out)
{
    if (field->type == EK_WIRE_VARINT) return ek_wire_int(field, out);
    if (field->type != EK_WIRE_BYTES) return wrong_type(field, "whole numbers");
    const unsigned char *at = field->data, *end = at + field->size;
    while (at < end) {
        uint64_t bits;
        EK_TRY(varint(&at, end, &bits));
        *out++ = (int64_t)bits;
    }
    return EK_OK;
}

ek_status ek_wire_fixed(const ek_wire_field *field, size_t size, const unsigned char **data, size_t *count)
{
    ek_wire_type single = size == 4 ? EK_WIRE_FIXED32 : EK_WIRE_FIXED64;
    if (field->type != EK_WIRE_BYTES && field->type != single)
        return wrong_type(field, size == 4 ? "floats" : "doubles");
    if (field->size % size) return cut_off();
    *data = field->data;
    *count = field->size / size;
    return EK_OK;
}
