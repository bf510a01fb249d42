/* IDX files, plain and packed: as items, as labels, and as images with labels. */
#include "fuzz.h"

#include "formats/arrays.h"

#include <stdio.h>

const fuzz_mutator fuzz_mutate = NULL;

static const unsigned char two_labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 1, 0};
static const unsigned char two_images[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 9, 8, 7, 6};
static char as_images[256], as_labels[256];

void fuzz_start(void)
{
    snprintf(as_images, sizeof as_images, "%s,%s", fuzz_path("input-idx"), fuzz_file("labels", two_labels, sizeof two_labels));
    snprintf(as_labels, sizeof as_labels, "%s,%s", fuzz_file("images", two_images, sizeof two_images), fuzz_path("input-idx"));
}

void fuzz_one(const unsigned char *data, size_t size)
{
    const char *path = fuzz_file("input-idx", data, size);
    ek_array array;
    if (!fuzz_took(ek_idx_read(path, &array))) return;
    int64_t count = 1;
    for (int i = 0; i < array.rank; i++) count *= array.dim[i];
    fuzz_require(count == array.count, "the count is the product of the shape");
    ek_shape item = {.rank = array.rank - 1};
    for (int i = 0; i < item.rank; i++) item.dim[i] = array.dim[i + 1];
    ek_array_clear(&array);
    fuzz_use_data(as_images, NULL);
    fuzz_use_data(as_labels, NULL);
    if (item.rank > 0) fuzz_use_data(path, &item);
}
