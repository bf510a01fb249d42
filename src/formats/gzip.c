#include "formats/gzip.h"

#include "core/file.h"
#include "core/memory.h"

#include <string.h>
#include <zlib.h>

static const size_t MAX_FILE = (size_t)1 << 34;
enum { STEP = 1 << 30 }; /* zlib counts in 32 bits */

ek_status ek_source_open(const char *path, ek_source *out)
{
    ek_source source = {0};
    EK_TRY(ek_file_read(path, MAX_FILE, &source.memory, &source.size));
    ek_status status = EK_OK;
    if (source.size >= 2 && source.memory[0] == 0x1f && source.memory[1] == 0x8b) {
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
    ek_free(source->memory);
    *source = (ek_source){0};
}

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static ek_status unpack(ek_source *s, unsigned char *bytes, size_t size, size_t *got)
{
    z_stream *z = s->stream;
    while (*got < size && !s->ended) {
        size_t in = smaller(s->size - s->used, STEP), out = smaller(size - *got, STEP);
        z->next_in = s->memory + s->used;
        z->avail_in = (uInt)in;
        z->next_out = bytes + *got;
        z->avail_out = (uInt)out;
        int code = inflate(z, Z_NO_FLUSH);
        s->used += in - z->avail_in;
        *got += out - z->avail_out;
        switch (code) {
        case Z_OK: break;
        case Z_STREAM_END: /* zlib has compared checksum and length */
            s->ended = true;
            if (s->used < s->size)
                return ek_fail(EK_E_FORMAT, "%zu bytes follow after the end of the gzip data",
                               s->size - s->used);
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
    *got = smaller(size, s->size - s->used);
    memcpy(bytes, s->memory + s->used, *got);
    s->used += *got;
    return EK_OK;
}

size_t ek_source_bound(const ek_source *s)
{
    size_t left = s->size - s->used;
    /* Deflate's best: 258 bytes from two bits (zlib's "maximum compression factor", 1032 to 1), and what
     * the decoder still holds of the input that it has taken, at most a window. */
    size_t bound;
    if (!s->stream) return left;
    if (ek_multiply_overflows(left + 64, 1032, &bound) || bound > SIZE_MAX - 32768) return SIZE_MAX;
    return bound + 32768;
}
