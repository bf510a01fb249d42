/* Writing protocol buffers' wire format (protobuf.dev/programming-guides/encoding): fields one after the other into
 * memory, messages within messages. Which field has which number stands in the .proto of the format that is written. */
#ifndef EK_CORE_PROTOBUF_WRITE_H
#define EK_CORE_PROTOBUF_WRITE_H

#include "core/status.h"

typedef struct ek_protobuf {
    unsigned char *data;
    size_t length, room;
    bool failed; /* memory ran out: later additions do nothing, ek_protobuf_status says so */
} ek_protobuf;

void ek_protobuf_free(ek_protobuf *message);
ek_status ek_protobuf_status(const ek_protobuf *message);
/* Empties it and keeps its memory. */
void ek_protobuf_clear(ek_protobuf *message);

/* int32, int64, uint64, bool and enum; a negative number as its two's complement in 64 bits. */
void ek_protobuf_int(ek_protobuf *message, int field, int64_t value);
void ek_protobuf_float(ek_protobuf *message, int field, float value);
void ek_protobuf_double(ek_protobuf *message, int field, double value);
void ek_protobuf_bytes(ek_protobuf *message, int field, const void *data, size_t size);
void ek_protobuf_text(ek_protobuf *message, int field, const char *text);
/* Repeated double, packed. */
void ek_protobuf_doubles(ek_protobuf *message, int field, const double *value, int64_t count);

/* Only the beginning of a message or of bytes: what follows, `size` of it, is written behind it by other means. */
void ek_protobuf_length(ek_protobuf *message, int field, size_t size);
/* Fields that are written already. */
void ek_protobuf_append(ek_protobuf *message, const void *data, size_t size);

/* A message within: what is added between belongs to it. `start` goes from begin to end. */
size_t ek_protobuf_begin(ek_protobuf *message, int field);
void ek_protobuf_end(ek_protobuf *message, size_t start);

#endif
