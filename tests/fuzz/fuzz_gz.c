/* Packed files: unpacked in pieces of several sizes, then as a packed table. The mutations keep the checksum right, so that what is
 * packed is read to its end. */
#include "fuzz.h"

#include "formats/gzip.h"

#include <string.h>
#include <zlib.h>

void fuzz_start(void) {}

void fuzz_one(const unsigned char *data, size_t size)
{
    static unsigned char piece[1 << 15];
    const char *path = fuzz_file("input.csv.gz", data, size);
    ek_source source;
    FUZZ_OK(ek_source_open(path, &source));
    size_t bound = ek_source_bound(&source), all = 0, got, wanted = 37 + (size ? (size_t)data[size - 1] * 64 : 0);
    do {
        if (!fuzz_took(ek_source_read(&source, piece, wanted, &got))) break;
        fuzz_require(got <= wanted, "no more is read than was asked for");
        all += got;
    } while (got == wanted);
    fuzz_require(all <= bound, "no more is unpacked than the bound says");
    ek_source_close(&source);

    fuzz_use_data(path, NULL);
}

/* Where the file is a header of ten bytes, deflated data and a trailer, puts the right checksum and length into the
 * trailer. */
static size_t mend(unsigned char *data, size_t size, size_t room)
{
    enum { HEADER = 10, TRAILER = 8 };
    static unsigned char text[1 << 20];
    z_stream z = {0};
    if (size < HEADER || data[3] != 0 || inflateInit2(&z, -15) != Z_OK) return size;
    z.next_in = data + HEADER;
    z.avail_in = (uInt)(size - HEADER);
    z.next_out = text;
    z.avail_out = sizeof text;
    bool whole = inflate(&z, Z_FINISH) == Z_STREAM_END;
    size_t end = HEADER + z.total_in, length = z.total_out;
    inflateEnd(&z);
    if (!whole || end + TRAILER > room) return size;
    uint32_t trailer[] = {(uint32_t)crc32(0, text, (uInt)length), (uint32_t)length};
    memcpy(data + end, trailer, TRAILER);
    return end + TRAILER;
}

static size_t mutate(unsigned char *data, size_t size, size_t room, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, room);
    return seed % 2 ? mend(data, size, room) : size;
}

const fuzz_mutator fuzz_mutate = mutate;
