/* Reading protocol buffers' wire format (protobuf.dev/programming-guides/encoding) where it lies: nothing is copied, and
 * nothing is trusted. */
#ifndef EK_CORE_PROTOBUF_READ_H
#define EK_CORE_PROTOBUF_READ_H

#include "core/status.h"

/* What is left of a message. */
typedef struct ek_wire {
    const unsigned char *at, *end;
    int depth; /* messages that it lies within */
} ek_wire;

typedef enum ek_wire_type {
    EK_WIRE_VARINT = 0,
    EK_WIRE_FIXED64 = 1,
    EK_WIRE_BYTES = 2,
    EK_WIRE_FIXED32 = 5
} ek_wire_type;

typedef struct ek_wire_field {
    int number;
    ek_wire_type type;
    uint64_t bits;             /* VARINT, FIXED64, FIXED32 */
    const unsigned char *data; /* BYTES, FIXED64, FIXED32: within the message */
    size_t size;
} ek_wire_field;

static inline ek_wire ek_wire_begin(const void *data, size_t size)
{
    return (ek_wire){.at = data, .end = (const unsigned char *)data + size};
}

/* The next field; *more false at the message's end.
 * EK_E_FORMAT: a length beyond the end, a varint of more than ten bytes, a group or an unknown type, a field 0 */
ek_status ek_wire_next(ek_wire *message, ek_wire_field *field, bool *more);

/* The message within a field. EK_E_FORMAT: the field is none, or lies within more than 64 others. */
ek_status ek_wire_enter(const ek_wire *outer, const ek_wire_field *field, ek_wire *inner);

/* A field's value. EK_E_FORMAT: it has another type. */
ek_status ek_wire_int(const ek_wire_field *field, int64_t *out);
ek_status ek_wire_float(const ek_wire_field *field, float *out);
ek_status ek_wire_bytes(const ek_wire_field *field, const unsigned char **data, size_t *size);

/* Of a repeated field of numbers, which may be one number or several packed: how many this one holds, and those. */
ek_status ek_wire_count_ints(const ek_wire_field *field, size_t *count);
ek_status ek_wire_take_ints(const ek_wire_field *field, int64_t *out);
/* The same for float (size 4) and double (8): its numbers' bytes, the lowest first. */
ek_status ek_wire_fixed(const ek_wire_field *field, size_t size, const unsigned char **data, size_t *count);

#endif
