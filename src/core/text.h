/* Strings that grow, and the nearest of several names for messages. */
#ifndef EK_CORE_TEXT_H
#define EK_CORE_TEXT_H

#include "core/status.h"

typedef struct ek_text {
    char *data; /* always ended by a zero once something was added; free with ek_text_free */
    size_t length, room;
    bool failed; /* memory ran out: later additions do nothing, ek_text_status says so */
} ek_text;

__attribute__((format(printf, 2, 3))) void ek_text_add(ek_text *text, const char *format, ...);
ek_status ek_text_status(const ek_text *text);
void ek_text_free(ek_text *text);

/* The edit distance (Damerau's, adjacent swaps count one), capped at 64 characters a side. */
int ek_edit_distance(const char *a, const char *b);

/* The name nearest to `wrong`, or NULL when none is near enough to be meant. */
const char *ek_nearest(const char *wrong, const char *const *names, int count);

bool ek_ends_with(const char *text, const char *end);

/* Whether the text is UTF-8 without control characters: fit for terminals, JSON and model files. */
bool ek_is_plain_text(const char *text);

/* "1x28x28"; "number" for rank 0. Returns `buffer`, which must hold EK_SHAPE_TEXT. */
#define EK_SHAPE_TEXT 96
const char *ek_shape_text(ek_shape shape, char buffer[EK_SHAPE_TEXT]);
bool ek_shape_equal(ek_shape a, ek_shape b);
int64_t ek_shape_count(ek_shape shape); /* product of the dimensions */

#endif
