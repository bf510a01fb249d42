/* What the array readers share: from a file's bytes to an ek_array. */
#ifndef EK_FORMATS_ARRAY_DECODE_H
#define EK_FORMATS_ARRAY_DECODE_H

#include "formats/arrays.h"
#include "core/numbers.h"

/* Gives `array`, whose shape is set, its data from the file's bytes, `raw`.
 * On failure the caller clears the array. */
ek_status ek_array_decode(ek_array *array, ek_number number, bool big_endian, const unsigned char *raw);

#endif
