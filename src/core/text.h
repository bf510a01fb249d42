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
/* Its data, which is the caller's to free; NULL where memory ran out. The text is empty then. */
char *ek_text_take(ek_text *text);
void ek_text_free(ek_text *text);

/* The edit distance (Damerau's, adjacent swaps count one), capped at 64 characters a side. */
int ek_edit_distance(const char *a, const char *b);

/* The name nearest to `wrong`, or NULL when none is near enough to be meant. */
const char *ek_nearest(const char *wrong, const char *const *names, int count);

/* The shortest text that reads back as the same number, with a point whatever the program's locale says: "0.1",
 * "1e-5", "4096"; "none" for a NaN. Returns `buffer`. */
#define EK_REAL_TEXT 40
const char *ek_real_text(double value, char buffer[EK_REAL_TEXT]);
/* The number with so many digits, with a point whatever the locale. Returns `buffer`. */
const char *ek_real_digits(double value, int digits, char buffer[EK_REAL_TEXT]);
/* "44,426" */
const char *ek_count_text(int64_t count, char buffer[EK_REAL_TEXT]);
/* All of the text from `at` to `end` as a decimal number, with a point; no infinity, no NaN, no hexadecimals. What
 * follows the text in memory must not go on with the number. */
bool ek_read_real(const char *at, const char *end, double *out);

bool ek_ends_with(const char *text, const char *end);

/* One character of UTF-8 (RFC 3629); *at moves past it. False where it is none, or a control character; *at has then
 * moved past one byte or more, and never past a zero that was not the first. */
bool ek_next_character(const unsigned char **at);

/* Whether the text is UTF-8 without control characters: fit for terminals, JSON and model files. */
bool ek_is_plain_text(const char *text);

#endif
