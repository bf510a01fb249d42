/* NPY files: as the array of `run`, as items, labels, lengths, and sequences with lengths. */
#include "fuzz.h"

#include "formats/arrays.h"

#include <stdio.h>

const fuzz_mutator fuzz_mutate = NULL;

enum { SPECS = 4 };
static char specs[SPECS][256];

/* Three of a kind, as IDX, which goes together with NPY. */
static const unsigned char labels[] = {0, 0, 8, 1, 0, 0, 0, 3, 1, 0, 1};
static const unsigned char images[] = {0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 2, 6, 5, 4, 3, 2, 1};

void fuzz_start(void)
{
    const char *x = fuzz_file("x", images, sizeof images), *y = fuzz_file("y", labels, sizeof labels),
               *input = fuzz_path("input.npy");
    snprintf(specs[0], sizeof specs[0], "%s,%s", input, y);
    snprintf(specs[1], sizeof specs[1], "%s,%s", x, input);
    snprintf(specs[2], sizeof specs[2], "%s,%s,%s", x, y, input);
    snprintf(specs[3], sizeof specs[3], "%s,%s,%s", input, y, y);
}

void fuzz_one(const unsigned char *data, size_t size)
{
    const char *path = fuzz_file("input.npy", data, size);
    ek_shape shape;
    float *values;
    if (!fuzz_took(ek_array_read(path, &shape, &values))) return;
    const char *again = fuzz_path("again.npy");
    FUZZ_OK(ek_array_write(again, shape, values));
    ek_array_free(values);
    FUZZ_OK(ek_array_read(again, &shape, &values));
    ek_array_free(values);

    int32_t lengths[8];
    if (shape.rank > 0 && shape.dim[0] <= 8) (void)fuzz_took(ek_lengths_read(path, shape.dim[0], 4, lengths));
    for (int i = 0; i < SPECS; i++) fuzz_use_data(specs[i], NULL);
    ek_shape item = {.rank = shape.rank - 1};
    for (int i = 0; i < item.rank; i++) item.dim[i] = shape.dim[i + 1];
    if (item.rank > 0) fuzz_use_data(path, &item);
}
