#include "sha256.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK = 64, ROUNDS = 64, LENGTH_AT = 56 };

/* The first 32 bits of the fractions of the cube roots of the first 64 primes. */
static const uint32_t constant[ROUNDS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turned(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void add_block(uint32_t state[8], const unsigned char *block)
{
    uint32_t w[ROUNDS], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < ROUNDS; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (turned(a, 7) ^ turned(a, 18) ^ a >> 3) + w[i - 7] + (turned(b, 17) ^ turned(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t e = s[4], a = s[0];
        uint32_t t = s[7] + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + constant[i] + w[i];
        uint32_t u = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t;
        s[0] = t + u;
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
}

void cli_sha256_begin(cli_sha256 *hash)
{
    *hash = (cli_sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab,
                                   0x5be0cd19}};
}

void cli_sha256_add(cli_sha256 *hash, const void *data, size_t size)
{
    const unsigned char *at = data;
    while (size > 0) {
        size_t used = hash->length % BLOCK, room = BLOCK - used, part = size < room ? size : room;
        memcpy(hash->block + used, at, part);
        hash->length += part;
        at += part;
        size -= part;
        if (part == room) add_block(hash->state, hash->block);
    }
}

void cli_sha256_end(cli_sha256 *hash, char text[CLI_SHA256_TEXT])
{
    static const unsigned char padding[BLOCK] = {0x80};
    uint64_t bits = 8 * hash->length;
    size_t used = hash->length % BLOCK;
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(bits >> (56 - 8 * i));
    cli_sha256_add(hash, padding, used < LENGTH_AT ? LENGTH_AT - used : BLOCK + LENGTH_AT - used);
    cli_sha256_add(hash, length, sizeof length);
    for (int i = 0; i < 8; i++) snprintf(text + 8 * i, CLI_SHA256_TEXT - 8 * (size_t)i, "%08x", (unsigned)hash->state[i]);
}

void cli_sha256_text(const char *text, char hash[CLI_SHA256_TEXT])
{
    cli_sha256 sum;
    cli_sha256_begin(&sum);
    cli_sha256_add(&sum, text, strlen(text));
    cli_sha256_end(&sum, hash);
}

bool cli_sha256_file(const char *path, char hash[CLI_SHA256_TEXT])
{
    unsigned char data[1 << 16];
    cli_sha256 sum;
    size_t got;
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    cli_sha256_begin(&sum);
    while ((got = fread(data, 1, sizeof data, file)) > 0) cli_sha256_add(&sum, data, got);
    int why = ferror(file) ? errno : 0;
    fclose(file);
    errno = why;
    cli_sha256_end(&sum, hash);
    return !why;
}
