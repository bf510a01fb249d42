/* Tables as text. */
#include "fuzz.h"

#include "core/shape.h"

const fuzz_mutator fuzz_mutate = NULL;

void fuzz_start(void) {}

void fuzz_one(const unsigned char *data, size_t size)
{
    const char *path = fuzz_file("input.csv", data, size);
    ek_dataset *set;
    if (!fuzz_took(ek_dataset_open(path, EK_SPLIT_ANY, &set))) return;
    fuzz_require(ek_shape_count(ek_dataset_shape(set)) > 0, "there are features");
    fuzz_use_data(set);
    ek_dataset_destroy(set);
}
