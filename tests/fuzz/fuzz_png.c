/* PNG images, grey and in colour. Most mutations keep the checksums of the chunks right, or nothing behind them would be
 * read. */
#include "fuzz.h"

#include <string.h>
#include <zlib.h>

void fuzz_start(void) {}

void fuzz_one(const unsigned char *data, size_t size) { fuzz_use_image(fuzz_file("input.png", data, size)); }

static void put_big(unsigned char *to, uint32_t number)
{
    for (int i = 0; i < 4; i++) to[i] = (unsigned char)(number >> (24 - 8 * i));
}

/* Chunks are a length, a name, so many bytes, and a checksum of name and bytes. */
static void mend(unsigned char *data, size_t size)
{
    enum { SIGNATURE = 8, LENGTH = 4, NAME = 4, SUM = 4 };
    for (size_t at = SIGNATURE; at + LENGTH + NAME + SUM <= size;) {
        size_t length = (size_t)data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3];
        size_t most = size - at - LENGTH - NAME - SUM;
        if (length > most) length = most;
        put_big(data + at, (uint32_t)length);
        unsigned char *name = data + at + LENGTH;
        put_big(name + NAME + length, (uint32_t)crc32(0, name, (uInt)(NAME + length)));
        at += LENGTH + NAME + length + SUM;
    }
}

static size_t mutate(unsigned char *data, size_t size, size_t room, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, room);
    if (seed % 8) mend(data, size);
    return size;
}

const fuzz_mutator fuzz_mutate = mutate;
