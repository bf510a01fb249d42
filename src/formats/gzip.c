#include "formats/gzip.h"

#include "core/file.h"
#include "core/memory.h"

#include <string.h>
#include <zlib.h>

enum { BUFFER = 1 << 16, STEP = 1 << 30 }; /* zlib counts in 32 bits */

ek_status ek_source_open(const char *path, ek_source *out)
{
    ek_source source = {.descriptor = -1};
    unsigned char mark[2] = {0};
    ek_status status = EK_OK;
    EK_GO(ek_file_open(path, &source.descriptor, &source.size));
    if (source.size >= 2) status = ek_file_read_at(source.descriptor, 0, sizeof mark, mark);
    if (status != EK_OK) EK_GO(ek_fail_in(status, "%s: ", path));
    if (mark[0] == 0x1f && mark[1] == 0x8b) {
        EK_GO(EK_NEW(source.buffer, BUFFER));
        EK_GO(EK_NEW(source.stream, 1));
        if (inflateInit2(source.stream, 15 + 16) != Z_OK) { /* the largest window, a gzip wrapper */
            ek_free(source.stream);
            source.stream = NULL;
            status = ek_fail(EK_E_MEMORY, "out of memory to unpack %s", path);
        }
    }
done:
    if (status == EK_OK)
        *out = source;
    else
        ek_source_close(&source);
    return status;
}

void ek_source_close(ek_source *source)
{
    if (source->stream) inflateEnd(source->stream);
    ek_free(source->stream);
    ek_free(source->buffer);
    ek_file_close(&source->descriptor);
    *source = (ek_source){.descriptor = -1};
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Compressed bytes that the stream has not taken yet. */
static size_t left(const ek_source *s) { return (size_t)(s->size - s->taken) + s->stream->avail_in; }

static ek_status fill_buffer(ek_source *s)
{
    z_stream *z = s->stream;
    if (z->avail_in > 0) return EK_OK;
    size_t in = smaller((size_t)(s->size - s->taken), BUFFER);
    EK_TRY(ek_file_read_at(s->descriptor, s->taken, in, s->buffer));
    s->taken += (int64_t)in;
    z->next_in = s->buffer;
    z->avail_in = (uInt)in;
    return EK_OK;
}

static ek_status unpack(ek_source *s, unsigned char *bytes, size_t size, size_t *got)
{
    z_stream *z = s->stream;
    while (*got < size && !s->ended) {
        size_t out = smaller(size - *got, STEP);
        EK_TRY(fill_buffer(s));
        z->next_out = bytes + *got;
        z->avail_out = (uInt)out;
        int code = inflate(z, Z_NO_FLUSH);
        *got += out - z->avail_out;
        switch (code) {
        case Z_OK: break;
        case Z_STREAM_END: /* zlib has compared checksum and length */
            s->ended = true;
            if (left(s) > 0)
                return ek_fail(EK_E_FORMAT, "%zu bytes follow after the end of the gzip data", left(s));
            break;
        case Z_BUF_ERROR: return ek_fail(EK_E_FORMAT, "the gzip data is cut short");
        case Z_MEM_ERROR: return ek_fail(EK_E_MEMORY, "out of memory to unpack the gzip data");
        default:
            return ek_fail(EK_E_FORMAT, "the gzip data is broken: %s",
                           z->msg ? z->msg : "it needs a dictionary");
        }
    }
    return EK_OK;
}

ek_status ek_source_read(ek_source *s, void *bytes, size_t size, size_t *got)
{
    *got = 0;
    if (s->stream) return unpack(s, bytes, size, got);
    size_t n = smaller(size, (size_t)(s->size - s->taken));
    EK_TRY(ek_file_read_at(s->descriptor, s->taken, n, bytes));
    s->taken += (int64_t)n;
    *got = n;
    return EK_OK;
}

size_t ek_source_bound(const ek_source *s)
{
    /* Deflate's best: 258 bytes from two bits (zlib's "maximum compression factor", 1032 to 1), and what
     * the decoder still holds of the input that it has taken, at most a window. */
    size_t bound;
    if (!s->stream) return (size_t)(s->size - s->taken);
    if (ek_multiply_overflows(left(s) + 64, 1032, &bound) || bound > SIZE_MAX - 32768) return SIZE_MAX;
    return bound + 32768;
}
