/* JPEG images, grey and in colour. */
#include "fuzz.h"

const fuzz_mutator fuzz_mutate = NULL;

void fuzz_start(void) {}

void fuzz_one(const unsigned char *data, size_t size) { fuzz_use_image(fuzz_file("input.jpg", data, size)); }
