#include "core/protobuf_write.h"

#include "core/memory.h"

#include <string.h>

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 }; /* wire types */
enum { VARINT_MAX = 10 };                                  /* bytes */

void ek_protobuf_free(ek_protobuf *m)
{
    ek_free(m->data);
    *m = (ek_protobuf){0};
}

ek_status ek_protobuf_status(const ek_protobuf *m)
{
    return m->failed ? ek_fail(EK_E_MEMORY, "out of memory for a message") : EK_OK;
}

void ek_protobuf_clear(ek_protobuf *m) { m->length = 0; }

static bool reserve(ek_protobuf *m, size_t more)
{
    if (m->failed) return false;
    size_t need;
    if (__builtin_add_overflow(m->length, more, &need)) {
        m->failed = true;
        return false;
    }
    if (need <= m->room) return true;
    size_t room = need > SIZE_MAX / 2 ? need : need * 2 > 256 ? need * 2 : 256;
    unsigned char *grown = ek_grow(m->data, room, 1);
    if (!grown) {
        m->failed = true;
        return false;
    }
    m->data = grown;
    m->room = room;
    return true;
}

void ek_protobuf_append(ek_protobuf *m, const void *data, size_t size)
{
    if (!reserve(m, size)) return;
    if (size) memcpy(m->data + m->length, data, size);
    m->length += size;
}

/* Seven bits a byte, the lowest first; a byte that another follows has its highest bit set. */
static size_t varint_bytes(uint64_t value, unsigned char out[VARINT_MAX])
{
    size_t count = 0;
    while (value >= 0x80) {
        out[count++] = (unsigned char)(value | 0x80);
        value >>= 7;
    }
    out[count++] = (unsigned char)value;
    return count;
}

static void varint(ek_protobuf *m, uint64_t value)
{
    unsigned char bytes[VARINT_MAX];
    ek_protobuf_append(m, bytes, varint_bytes(value, bytes));
}

static void tag(ek_protobuf *m, int field, int type) { varint(m, (uint64_t)field << 3 | (uint64_t)type); }

/* The lowest byte first, on any machine. */
static void fixed(ek_protobuf *m, uint64_t bits, size_t size)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)(bits >> 8 * i);
    ek_protobuf_append(m, bytes, size);
}

static void double_bits(ek_protobuf *m, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    fixed(m, bits, sizeof bits);
}

void ek_protobuf_int(ek_protobuf *m, int field, int64_t value)
{
    tag(m, field, VARINT);
    varint(m, (uint64_t)value);
}

void ek_protobuf_float(ek_protobuf *m, int field, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    tag(m, field, FIXED32);
    fixed(m, bits, sizeof bits);
}

void ek_protobuf_double(ek_protobuf *m, int field, double value)
{
    tag(m, field, FIXED64);
    double_bits(m, value);
}

void ek_protobuf_bytes(ek_protobuf *m, int field, const void *data, size_t size)
{
    ek_protobuf_length(m, field, size);
    ek_protobuf_append(m, data, size);
}

void ek_protobuf_text(ek_protobuf *m, int field, const char *text)
{
    ek_protobuf_bytes(m, field, text, strlen(text));
}

void ek_protobuf_doubles(ek_protobuf *m, int field, const double *value, int64_t count)
{
    ek_protobuf_length(m, field, (size_t)count * sizeof *value);
    for (int64_t i = 0; i < count; i++) double_bits(m, value[i]);
}

void ek_protobuf_length(ek_protobuf *m, int field, size_t size)
{
    tag(m, field, LENGTH);
    varint(m, size);
}

size_t ek_protobuf_begin(ek_protobuf *m, int field)
{
    tag(m, field, LENGTH);
    return m->length;
}

/* The length is known now, and goes in front of what it counts. */
void ek_protobuf_end(ek_protobuf *m, size_t start)
{
    if (m->failed) return;
    unsigned char bytes[VARINT_MAX];
    size_t size = m->length - start, count = varint_bytes(size, bytes);
    if (!reserve(m, count)) return;
    memmove(m->data + start + count, m->data + start, size);
    memcpy(m->data + start, bytes, count);
    m->length += count;
}
