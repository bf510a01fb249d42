#include "output.h"

#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void say(const char *before, const char *format, va_list args)
{
    fputs(before, stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

int cli_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("evenkeel: ", format, args);
    va_end(args);
    return CLI_FAILED;
}

void cli_note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("evenkeel: note: ", format, args);
    va_end(args);
}

void *cli_alloc(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) exit(cli_fail("out of memory"));
    return memory;
}

char *cli_text(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    if (length < 0) exit(cli_fail("out of memory"));
    return text;
}

int cli_fail_status(void) { return cli_fail("%s", ek_error()); }

/* --- numbers for people */

char *cli_count(char text[CLI_TEXT_SIZE], int64_t count)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)count);
    char *end = text;
    for (int i = 0; i < length; i++) {
        bool between = i > 0 && digits[i - 1] != '-' && (length - i) % 3 == 0;
        if (between) *end++ = ',';
        *end++ = digits[i];
    }
    *end = '\0';
    return text;
}

char *cli_bytes(char text[CLI_TEXT_SIZE], double bytes)
{
    static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    int power = 0;
    while (bytes >= 1024 && power < 4) {
        bytes /= 1024;
        power++;
    }
    snprintf(text, CLI_TEXT_SIZE, power ? "%.1f %s" : "%.0f %s", bytes, unit[power]);
    return text;
}

char *cli_duration(char text[CLI_TEXT_SIZE], double seconds)
{
    long long whole = isfinite(seconds) && seconds < 1e12 ? llround(seconds) : 0;
    if (whole >= 3600) {
        snprintf(text, CLI_TEXT_SIZE, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
    } else {
        snprintf(text, CLI_TEXT_SIZE, "%lld:%02lld", whole / 60, whole % 60);
    }
    return text;
}

char *cli_measure(char text[CLI_TEXT_SIZE], double measure)
{
    snprintf(text, CLI_TEXT_SIZE, isfinite(measure) ? "%.4f" : "-", measure);
    return text;
}

char *cli_real(char text[CLI_TEXT_SIZE], double value)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, CLI_TEXT_SIZE, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    return text;
}

char *cli_shape(char text[CLI_TEXT_SIZE], ek_shape shape)
{
    snprintf(text, CLI_TEXT_SIZE, "1"); /* rank 0: a single number */
    for (int i = 0, used = 0; i < shape.rank; i++)
        used += snprintf(text + used, CLI_TEXT_SIZE - (size_t)used, i ? "x%lld" : "%lld",
                         (long long)shape.dim[i]);
    return text;
}

int64_t cli_numbers(ek_shape shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape.rank; i++) count *= shape.dim[i];
    return count;
}

/* --- text */

/* Characters of UTF-8. */
static int width_of(const char *text, int bytes)
{
    int width = 0;
    for (int i = 0; i < bytes; i++) width += ((unsigned char)text[i] & 0xc0) != 0x80;
    return width;
}

void cli_print_wrapped_at(const char *text, int column, int indent)
{
    enum { WIDTH = 80 };
    for (const char *word = text; *word;) {
        int length = (int)strcspn(word, " "), width = width_of(word, length);
        if (column > indent && column + 1 + width > WIDTH) {
            printf("\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            putchar(' ');
            column++;
        }
        printf("%.*s", length, word);
        column += width;
        word += length;
        word += strspn(word, " ");
    }
    putchar('\n');
}

/* --- tables */

static void add_cell(cli_table *table, const char *text, size_t length)
{
    if (table->cells == table->room) {
        table->room = table->room ? table->room * 2 : 64;
        char **grown = realloc(table->cell, (size_t)table->room * sizeof *grown);
        if (!grown) exit(cli_fail("out of memory"));
        table->cell = grown;
    }
    table->cell[table->cells] = strndup(text, length);
    if (!table->cell[table->cells++]) exit(cli_fail("out of memory"));
}

void cli_table_begin(cli_table *table, const char *headings)
{
    *table = (cli_table){0};
    while (table->columns < CLI_MAX_COLUMNS) {
        bool right = *headings == '>';
        headings += right;
        size_t length = strcspn(headings, "|");
        table->right[table->columns++] = right;
        add_cell(table, headings, length);
        if (!headings[length]) break;
        headings += length + 1;
    }
}

void cli_table_row(cli_table *table, ...)
{
    va_list args;
    va_start(args, table);
    for (int column = 0; column < table->columns; column++) {
        const char *text = va_arg(args, const char *);
        add_cell(table, text, strlen(text));
    }
    va_end(args);
}

void cli_table_cells(cli_table *table, const char *const *cells)
{
    for (int column = 0; column < table->columns; column++) add_cell(table, cells[column], strlen(cells[column]));
}

void cli_table_print(const cli_table *table)
{
    int width[CLI_MAX_COLUMNS] = {0};
    for (int i = 0; i < table->cells; i++) {
        int length = width_of(table->cell[i], (int)strlen(table->cell[i]));
        if (length > width[i % table->columns]) width[i % table->columns] = length;
    }
    /* Spaces are held back until a cell follows, so that no line ends in them. */
    int spaces = 0;
    for (int i = 0; i < table->cells; i++) {
        int column = i % table->columns, length = width_of(table->cell[i], (int)strlen(table->cell[i])),
            fill = width[column] - length;
        if (length) {
            printf("%*s%s", spaces + (table->right[column] ? fill : 0), "", table->cell[i]);
            spaces = table->right[column] ? 0 : fill;
        } else {
            spaces += fill;
        }
        spaces += 2;
        if (column == table->columns - 1) {
            putchar('\n');
            spaces = 0;
        }
    }
}

void cli_table_free(cli_table *table)
{
    for (int i = 0; i < table->cells; i++) free(table->cell[i]);
    free(table->cell);
    *table = (cli_table){0};
}

/* --- JSON */

/* Where memory runs out jansson leaves a hole in the object, and few calls tell. */
static atomic_bool has_holes;

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory) atomic_store(&has_holes, true);
    return memory;
}

void cli_json_begin(void) { json_set_alloc_funcs(allocate, free); }
bool cli_json_is_whole(void) { return !atomic_load(&has_holes); }

/* Enough digits that a float is read back as it was. */
enum { JSON_FLAGS = JSON_COMPACT | JSON_REAL_PRECISION(9) };

void cli_json_number(json_t *object, const char *key, double number)
{
    if (isfinite(number)) json_object_set_new(object, key, json_real(number));
}

json_t *cli_json_text(const char *text)
{
    json_t *plain = json_string(text);
    if (plain) return plain;
    char *ascii = strdup(text);
    if (!ascii) return NULL;
    for (char *c = ascii; *c; c++) {
        if ((unsigned char)*c >= 0x80) *c = '?';
    }
    plain = json_string(ascii);
    free(ascii);
    return plain;
}

json_t *cli_json_shape(ek_shape shape)
{
    json_t *array = json_array();
    for (int i = 0; i < shape.rank; i++) json_array_append_new(array, json_integer(shape.dim[i]));
    return array;
}

json_t *cli_json_floats(const float *value, int64_t count)
{
    json_t *array = json_array();
    for (int64_t i = 0; i < count; i++) json_array_append_new(array, json_real((double)value[i]));
    return array;
}

/* False: it has holes, and nothing was written, or not all of it. */
static bool write_json(FILE *file, const json_t *object, size_t flags)
{
    errno = ENOMEM;
    if (!object || atomic_load(&has_holes)) return false;
    errno = 0;
    bool written = json_dumpf(object, file, flags) == 0 && fputc('\n', file) != EOF;
    if (!errno) errno = ENOMEM;
    return written;
}

bool cli_json_write(FILE *file, const json_t *object) { return write_json(file, object, JSON_FLAGS); }

bool cli_json_write_exact(FILE *file, const json_t *object)
{
    return write_json(file, object, JSON_COMPACT | JSON_REAL_PRECISION(17));
}

int cli_json_answer(json_t *object)
{
    bool written = cli_json_write(stdout, object);
    json_decref(object);
    return written ? CLI_DONE : cli_fail("cannot write the answer: %s", strerror(errno));
}
