/* Tables of numbers as text. */
#include "core/memory.h"
#include "formats/arrays.h"
#include "formats/gzip.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const size_t MAX_TEXT = (size_t)1 << 30;
enum { MAX_LINES = 1 << 24, MAX_NAMES = 1000, SHOWN = 40 };

typedef struct text_line {
    char *text;     /* ended by a zero */
    int64_t number; /* from 1 */
} text_line;

/* A table under way. */
typedef struct reader {
    char *text;
    text_line *lines; /* those with something on them */
    int64_t line_count;
    int64_t first;   /* the first that is data: 1 after a header */
    char separator;  /* ' ': any run of blanks */
    locale_t locale; /* "C": a number has a decimal point whatever the program's language */
    bool named;      /* the last column holds names */
} reader;

/* --- text into lines */

/* The whole text, unpacked if need be, with a zero after it. */
static ek_status read_text(const char *path, char **text, size_t *size)
{
    ek_source source;
    EK_TRY(ek_source_open(path, &source));
    ek_status status = EK_OK;
    char *bytes = NULL;
    size_t used = 0, room = 0;
    /* Room is doubled as the text comes: a small packed file may hold a very long one. */
    while (used == room) {
        room = room ? 2 * room : (size_t)1 << 16;
        if (room > MAX_TEXT) {
            status = ek_fail(EK_E_FORMAT, "it has %zu bytes of text or more; less is read", MAX_TEXT);
            goto done;
        }
        char *grown = ek_grow(bytes, room + 1, 1);
        if (!grown) {
            status = EK_E_MEMORY;
            goto done;
        }
        bytes = grown;
        size_t got;
        EK_GO(ek_source_read(&source, bytes + used, room - used, &got));
        used += got;
    }
    if (memchr(bytes, 0, used)) {
        status = ek_fail(EK_E_FORMAT, "it holds zero bytes: it is not a text");
        goto done;
    }
    *text = bytes;
    *size = used;
    bytes = NULL;
done:
    ek_free(bytes);
    ek_source_close(&source);
    return status;
}

static ek_status split_lines(reader *r, size_t size)
{
    size_t feeds = 0;
    for (size_t i = 0; i < size; i++) feeds += r->text[i] == '\n';
    /* A packed text of nothing but short lines would else be many times its length in memory. */
    if (feeds >= MAX_LINES)
        return ek_fail(EK_E_FORMAT, "it has more than %d lines; no more are read", MAX_LINES);
    EK_TRY(EK_NEW(r->lines, feeds + 1));
    char *next = r->text;
    if (!strncmp(next, "\xef\xbb\xbf", 3)) next += 3; /* the mark that spreadsheets begin UTF-8 with */
    for (int64_t number = 1; next; number++) {
        char *text = next, *feed = strchr(text, '\n');
        next = feed ? feed + 1 : NULL;
        if (feed) *feed = 0;
        text[strcspn(text, "\r")] = 0;
        const char *first = text + strspn(text, " \t");
        if (*first && *first != '#') r->lines[r->line_count++] = (text_line){text, number};
    }
    return r->line_count ? EK_OK : ek_fail(EK_E_FORMAT, "it holds no rows");
}

/* --- lines into fields */

/* A field's text in the line, without the blanks and quotes around it. */
typedef struct field {
    const char *text;
    size_t length;
} field;

/* The next field; *at moves past its separator, to NULL after the last. */
static bool next_field(const reader *r, const char **at, field *out)
{
    if (!*at) return false;
    char ends[] = {r->separator, r->separator == ' ' ? '\t' : r->separator, 0};
    const char *blanks = r->separator == '\t' ? " " : " \t";
    const char *start = *at + strspn(*at, blanks), *end = start + strcspn(start, ends);
    if (*start == '"') { /* a separator may stand between quotes */
        const char *quote = strchr(start + 1, '"');
        if (quote) end = quote + 1 + strcspn(quote + 1, ends);
    }
    const char *rest = r->separator == ' ' ? end + strspn(end, blanks) : end + (*end != 0);
    *at = *(r->separator == ' ' ? rest : end) ? rest : NULL;
    while (end > start && strchr(blanks, end[-1])) end--;
    if (end - start >= 2 && *start == '"' && end[-1] == '"') {
        start++;
        end--;
    }
    *out = (field){start, (size_t)(end - start)};
    return true;
}

static bool to_number(const reader *r, field f, double *out)
{
    char *end;
    *out = strtod_l(f.text, &end, r->locale);
    return f.length && end == f.text + f.length;
}

static ek_status complain(const text_line *line, int64_t column, field f, const char *what)
{
    char shown[SHOWN + 1] = "";
    for (size_t i = 0; i < SHOWN && i < f.length; i++)
        shown[i] = (unsigned char)f.text[i] < ' ' || f.text[i] == 127 ? '?' : f.text[i];
    return ek_fail(EK_E_FORMAT, "line %lld, column %lld: '%s' %s", (long long)line->number, (long long)column,
                   shown, what);
}

typedef struct tally {
    int64_t fields, numbers;
    bool last_is_number;
} tally;

static tally count_fields(const reader *r, const text_line *line)
{
    tally t = {0};
    const char *at = line->text;
    field f;
    double value;
    while (next_field(r, &at, &f)) {
        t.fields++;
        t.last_is_number = to_number(r, f, &value);
        t.numbers += t.last_is_number;
    }
    return t;
}

/* The separator is seen on the second line, which is data even where the first is a header. A header is a
 * first line without numbers, or with words and not as many fields as the next. */
static void find_layout(reader *r, int64_t *columns)
{
    const text_line *sample = &r->lines[r->line_count > 1];
    r->separator = strchr(sample->text, ',')    ? ','
                   : strchr(sample->text, ';')  ? ';'
                   : strchr(sample->text, '\t') ? '\t'
                                                : ' ';
    tally first = count_fields(r, &r->lines[0]), second = count_fields(r, sample);
    if (r->line_count > 1 && first.numbers < first.fields &&
        (!first.numbers || first.fields != second.fields)) {
        r->first = 1;
        first = second;
    }
    *columns = first.fields;
    r->named = !first.last_is_number;
}

/* --- fields into the table */

static ek_status name_index(ek_table *table, const text_line *line, field f, float *out)
{
    for (int i = 0; i < table->name_count; i++) {
        if (strlen(table->names[i]) != f.length || memcmp(table->names[i], f.text, f.length)) continue;
        *out = (float)i;
        return EK_OK;
    }
    if (table->name_count == MAX_NAMES)
        return ek_fail(EK_E_FORMAT, "line %lld: more than %d different names in the last column",
                       (long long)line->number, MAX_NAMES);
    *out = (float)table->name_count;
    char *name = ek_strndup(f.text, f.length);
    if (!name) return EK_E_MEMORY;
    table->names[table->name_count++] = name;
    return EK_OK;
}

static ek_status read_row(const reader *r, const text_line *line, ek_table *table, float *row)
{
    const char *at = line->text;
    field f;
    for (int64_t column = 1; next_field(r, &at, &f); column++, row++) {
        double value;
        bool number = to_number(r, f, &value), name = r->named && column == table->columns;
        if (name && !f.length) return complain(line, column, f, "is no name");
        if (name && number) return complain(line, column, f, "is a number where the first row has a name");
        if (name) {
            EK_TRY(name_index(table, line, f, row));
            continue;
        }
        if (!number) return complain(line, column, f, "is not a number");
        *row = (float)value;
        if (!isfinite(*row)) return complain(line, column, f, "is not finite as a 32-bit float");
    }
    return EK_OK;
}

static ek_status read_table(const reader *r, ek_table *table)
{
    /* Each row is checked before there is room for all: what is asked for is then bounded by the text. */
    for (int64_t i = r->first; i < r->line_count; i++) {
        int64_t fields = count_fields(r, &r->lines[i]).fields;
        if (fields != table->columns)
            return ek_fail(EK_E_FORMAT, "line %lld has %lld columns, the first row has %lld",
                           (long long)r->lines[i].number, (long long)fields, (long long)table->columns);
    }
    table->rows = r->line_count - r->first;
    EK_TRY(EK_NEW(table->values, (size_t)table->rows * (size_t)table->columns));
    if (r->named) EK_TRY(EK_NEW(table->names, MAX_NAMES));
    for (int64_t i = 0; i < table->rows; i++)
        EK_TRY(read_row(r, &r->lines[r->first + i], table, table->values + i * table->columns));
    return EK_OK;
}

ek_status ek_csv_read(const char *path, ek_table *out)
{
    reader r = {0};
    ek_table table = {0};
    size_t size = 0;
    ek_status status = EK_OK;
    r.locale = newlocale(LC_ALL_MASK, "C", NULL);
    if (!r.locale) return ek_fail_errno("%s", path);
    EK_GO(read_text(path, &r.text, &size));
    EK_GO(split_lines(&r, size));
    find_layout(&r, &table.columns);
    EK_GO(read_table(&r, &table));
    *out = table;
done:
    if (status != EK_OK) {
        ek_fail_in(status, "%s: ", path);
        ek_table_clear(&table);
    }
    freelocale(r.locale);
    ek_free(r.lines);
    ek_free(r.text);
    return status;
}

void ek_table_clear(ek_table *table)
{
    for (int i = 0; i < table->name_count; i++) ek_free(table->names[i]);
    ek_free(table->names);
    ek_free(table->values);
    *table = (ek_table){0};
}
