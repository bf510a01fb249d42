/* Reading a file's bytes in order, through gzip where its first bytes say so, with a buffer's memory alone. */
#ifndef EK_FORMATS_GZIP_H
#define EK_FORMATS_GZIP_H

#include "core/status.h"

typedef struct ek_source {
    int descriptor;      /* -1: closed */
    int64_t size, taken; /* bytes as they lie on disk, and how many of them have been read */
    struct z_stream_s *stream; /* NULL: not compressed */
    unsigned char *buffer;     /* of compressed bytes */
    bool ended;                /* the compressed stream */
} ek_source;

ek_status ek_source_open(const char *path, ek_source *out);
void ek_source_close(ek_source *source);

/* The next bytes, up to `size`; less only at the end. A broken gzip stream is EK_E_FORMAT;
 * its checksum has been compared once a read has met the end. */
ek_status ek_source_read(ek_source *source, void *bytes, size_t size, size_t *got);
/* An upper bound of the bytes that are left, found without unpacking them. */
size_t ek_source_bound(const ek_source *source);

#endif
