#include "core/text.h"

#include "core/memory.h"

#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ek_text_add(ek_text *text, const char *format, ...)
{
    if (text->failed) return;
    va_list args;
    va_start(args, format);
    int more = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (more < 0) {
        text->failed = true;
        return;
    }
    size_t need = text->length + (size_t)more + 1;
    if (need > text->room) {
        size_t room = need * 2 > 256 ? need * 2 : 256;
        char *grown = ek_grow(text->data, room, 1);
        if (!grown) {
            text->failed = true;
            return;
        }
        text->data = grown;
        text->room = room;
    }
    va_start(args, format);
    vsnprintf(text->data + text->length, text->room - text->length, format, args);
    va_end(args);
    text->length += (size_t)more;
}

ek_status ek_text_status(const ek_text *text)
{
    return text->failed ? ek_fail(EK_E_MEMORY, "out of memory for a text") : EK_OK;
}

char *ek_text_take(ek_text *text)
{
    char *data = ek_text_status(text) == EK_OK ? text->data : NULL;
    if (!data) ek_free(text->data);
    *text = (ek_text){0};
    return data;
}

void ek_text_free(ek_text *text)
{
    ek_free(text->data);
    *text = (ek_text){0};
}

bool ek_ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* In glibc and musl this locale is a constant: asking for it neither fails nor allocates. */
static locale_t plain(void) { return newlocale(LC_ALL_MASK, "C", (locale_t)0); }

const char *ek_real_digits(double value, int digits, char buffer[EK_REAL_TEXT])
{
    locale_t before = uselocale(plain());
    snprintf(buffer, EK_REAL_TEXT, "%.*g", digits, value);
    uselocale(before);
    return buffer;
}

const char *ek_count_text(int64_t count, char buffer[EK_REAL_TEXT])
{
    char digits[EK_REAL_TEXT];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)count);
    char *end = buffer;
    for (int i = 0; i < length; i++) {
        bool between = i > 0 && digits[i - 1] != '-' && (length - i) % 3 == 0;
        if (between) *end++ = ',';
        *end++ = digits[i];
    }
    *end = '\0';
    return buffer;
}

const char *ek_real_text(double value, char buffer[EK_REAL_TEXT])
{
    if (isnan(value)) return strcpy(buffer, "none");
    if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(buffer, EK_REAL_TEXT, "%.0f", value);
        return buffer;
    }
    for (int digits = 1; digits <= 17; digits++) {
        ek_real_digits(value, digits, buffer);
        if (strtod_l(buffer, NULL, plain()) == value) break;
    }
    char *exponent = strchr(buffer, 'e');
    if (exponent) { /* 1e-05: the sign stays, a plus and zeros go */
        char *to = exponent + 1, *from = to;
        if (*from == '-') from = ++to;
        while (*from == '+' || *from == '0') from++;
        memmove(to, from, strlen(from) + 1);
    }
    return buffer;
}

bool ek_read_real(const char *at, const char *end, double *out)
{
    for (const char *c = at; c < end; c++) {
        if (!strchr("0123456789.+-eE", *c)) return false; /* strtod also knows inf, nan and hexadecimals */
    }
    char *stop;
    *out = strtod_l(at, &stop, plain());
    return at < end && stop == end;
}

enum { WORD = 64 };

static int min(int a, int b) { return a < b ? a : b; }

int ek_edit_distance(const char *a, const char *b)
{
    int n = (int)strnlen(a, WORD), m = (int)strnlen(b, WORD);
    int row[3][WORD + 1]; /* of the distance matrix: two before, before, present */
    for (int j = 0; j <= m; j++) row[1][j] = j;
    for (int i = 1; i <= n; i++) {
        row[2][0] = i;
        for (int j = 1; j <= m; j++) {
            int change = row[1][j - 1] + (a[i - 1] != b[j - 1]);
            row[2][j] = min(min(row[1][j] + 1, row[2][j - 1] + 1), change);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[2][j] = min(row[2][j], row[0][j - 2] + 1);
        }
        memcpy(row[0], row[1], sizeof row[0]);
        memcpy(row[1], row[2], sizeof row[1]);
    }
    return row[1][m];
}

const char *ek_nearest(const char *wrong, const char *const *names, int count)
{
    const char *best = NULL;
    int best_distance = WORD;
    for (int i = 0; i < count; i++) {
        int distance = ek_edit_distance(wrong, names[i]);
        if (distance < best_distance) {
            best = names[i];
            best_distance = distance;
        }
    }
    /* A third of the letters, and at least one, may be wrong. */
    int limit = (int)strnlen(wrong, WORD) / 3;
    return best_distance <= (limit > 1 ? limit : 1) ? best : NULL;
}

bool ek_next_character(const unsigned char **at)
{
    static const uint32_t least[] = {0x20, 0xa0, 0x800, 0x10000}; /* C1 controls end at 0x9f */
    uint32_t code = *(*at)++;
    int more = code < 0x80 ? 0 : code < 0xc0 ? -1 : code < 0xe0 ? 1 : code < 0xf0 ? 2 : code < 0xf8 ? 3 : -1;
    if (more < 0) return false;
    if (more > 0) code &= 0x3fu >> more;
    for (int i = 0; i < more; i++, (*at)++) {
        if ((**at & 0xc0) != 0x80) return false;
        code = code << 6 | (**at & 0x3f);
    }
    return code >= least[more] && code != 127 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
}

bool ek_is_plain_text(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        if (!ek_next_character(&at)) return false;
    }
    return true;
}
