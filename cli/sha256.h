/* SHA-256 (FIPS 180-4): what files and data are known again by. */
#ifndef CLI_SHA256_H
#define CLI_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cli_sha256 {
    uint32_t state[8];
    uint64_t length; /* bytes so far */
    unsigned char block[64];
} cli_sha256;

enum { CLI_SHA256_TEXT = 65 }; /* 64 hexadecimal digits, as sha256sum prints them */

void cli_sha256_begin(cli_sha256 *hash);
void cli_sha256_add(cli_sha256 *hash, const void *data, size_t size);
void cli_sha256_end(cli_sha256 *hash, char text[CLI_SHA256_TEXT]);

void cli_sha256_text(const char *text, char hash[CLI_SHA256_TEXT]);
/* False: the file cannot be read; errno says why. */
bool cli_sha256_file(const char *path, char hash[CLI_SHA256_TEXT]);

#endif
