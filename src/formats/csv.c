/* Tables of numbers as text. */
#include "core/file.h"
#include "core/memory.h"
#include "formats/arrays.h"
#include "formats/gzip.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_NAMES = 1000,
    SHOWN = 40,
    BUFFER = 1 << 16,
    MAX_LINE = 1 << 26,
    BLOCK = 4096,
    MOST_BLOCKS = 1 << 21
};

typedef struct text_line {
    char *text;     /* ended by a zero */
    int64_t number; /* from 1 */
    int64_t offset; /* in the text */
} text_line;

/* How lines are read. */
typedef struct row_layout {
    char separator;  /* ' ': any run of blanks */
    locale_t locale; /* "C": a number has a decimal point whatever the program's language */
    int64_t columns;
    bool named; /* the last column holds names */
} row_layout;

/* --- text into lines */

/* A text read from front to back, a line at a time. */
typedef struct lines {
    ek_source source;
    char *buffer;
    size_t room, filled, at; /* the next line begins at `at` */
    int64_t offset;          /* of the buffer in the text */
    int64_t number;          /* of lines so far */
    bool ended;              /* all of the text is in the buffer */
} lines;

static ek_status lines_open(const char *path, lines *out)
{
    lines l = {.room = BUFFER};
    EK_TRY(ek_source_open(path, &l.source));
    if (EK_NEW(l.buffer, l.room + 1) != EK_OK) {
        ek_source_close(&l.source);
        return EK_E_MEMORY;
    }
    *out = l;
    return EK_OK;
}

static void lines_close(lines *l)
{
    ek_free(l->buffer);
    l->buffer = NULL;
    ek_source_close(&l->source);
}

/* More of the text, behind the rest of the buffer, which is moved to its front. */
static ek_status read_on(lines *l)
{
    size_t got;
    l->filled -= l->at;
    l->offset += (int64_t)l->at;
    memmove(l->buffer, l->buffer + l->at, l->filled);
    l->at = 0;
    if (l->filled == l->room) {
        if (l->room >= MAX_LINE)
            return ek_fail(EK_E_FORMAT, "line %lld is longer than the %d bytes that are read",
                           (long long)l->number + 1, MAX_LINE);
        char *grown = ek_grow(l->buffer, 2 * l->room + 1, 1);
        if (!grown) return EK_E_MEMORY;
        l->buffer = grown;
        l->room *= 2;
    }
    EK_TRY(ek_source_read(&l->source, l->buffer + l->filled, l->room - l->filled, &got));
    if (memchr(l->buffer + l->filled, 0, got))
        return ek_fail(EK_E_FORMAT, "it holds zero bytes: it is not a text");
    l->ended = got < l->room - l->filled;
    l->filled += got;
    return EK_OK;
}

/* A line with something on it that is no comment. */
static bool has_row(const char *text)
{
    const char *first = text + strspn(text, " \t");
    return !strchr("\r\n#", *first); /* and the zero at its end */
}

/* The next line, without its end: with *there false after the last. */
static ek_status next_line(lines *l, text_line *line, bool *there)
{
    char *feed;
    *there = true;
    while (!(feed = memchr(l->buffer + l->at, '\n', l->filled - l->at)) && !l->ended) EK_TRY(read_on(l));
    if (!feed && l->at == l->filled) {
        *there = false;
        return EK_OK;
    }
    *line = (text_line){l->buffer + l->at, ++l->number, l->offset + (int64_t)l->at};
    size_t end = feed ? (size_t)(feed - l->buffer) : l->filled;
    l->buffer[end] = 0;
    l->at = feed ? end + 1 : end;
    if (line->offset == 0 && !strncmp(line->text, "\xef\xbb\xbf", 3)) { /* as spreadsheets begin UTF-8 */
        line->text += 3;
        line->offset += 3;
    }
    line->text[strcspn(line->text, "\r")] = 0;
    return EK_OK;
}

/* The next one with a row. */
static ek_status next_row_line(lines *l, text_line *line, bool *there)
{
    do EK_TRY(next_line(l, line, there));
    while (*there && !has_row(line->text));
    return EK_OK;
}

/* --- lines into fields */

/* A field's text in the line, without the blanks and quotes around it. */
typedef struct field {
    const char *text;
    size_t length;
} field;

/* The next field; *at moves past its separator, to NULL after the last. */
static bool next_field(const row_layout *layout, const char **at, field *out)
{
    if (!*at) return false;
    char ends[] = {layout->separator, layout->separator == ' ' ? '\t' : layout->separator, 0};
    const char *blanks = layout->separator == '\t' ? " " : " \t";
    const char *start = *at + strspn(*at, blanks), *end = start + strcspn(start, ends);
    if (*start == '"') { /* a separator may stand between quotes */
        const char *quote = strchr(start + 1, '"');
        if (quote) end = quote + 1 + strcspn(quote + 1, ends);
    }
    const char *rest = layout->separator == ' ' ? end + strspn(end, blanks) : end + (*end != 0);
    *at = *(layout->separator == ' ' ? rest : end) ? rest : NULL;
    while (end > start && strchr(blanks, end[-1])) end--;
    if (end - start >= 2 && *start == '"' && end[-1] == '"') {
        start++;
        end--;
    }
    *out = (field){start, (size_t)(end - start)};
    return true;
}

/* The digits of most numbers are a whole number below 2^53 over a power of ten that a double holds: one division rounds
 * it right (Clinger, "How to read floating point numbers accurately", PLDI 1990). All else is strtod's. */
static bool to_number(const row_layout *layout, field f, double *out)
{
    static const double ten[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    enum { DIGITS = 15 };
    const char *at = f.text, *end = f.text + f.length;
    bool negative = at < end && *at == '-';
    int64_t whole = 0;
    int digits = 0, behind = -1; /* the point */
    for (at += negative; at < end && digits <= DIGITS; at++) {
        if (*at >= '0' && *at <= '9') {
            whole = 10 * whole + (*at - '0');
            digits++;
        } else if (*at == '.' && behind < 0) {
            behind = digits;
        } else {
            break;
        }
    }
    if (at == end && digits > 0 && digits <= DIGITS) {
        double value = (double)whole / ten[behind < 0 ? 0 : digits - behind];
        *out = negative ? -value : value;
        return true;
    }
    char *stop;
    *out = strtod_l(f.text, &stop, layout->locale);
    return f.length && stop == end;
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

static tally count_fields(const row_layout *layout, const text_line *line)
{
    tally t = {0};
    const char *at = line->text;
    field f;
    double value;
    while (next_field(layout, &at, &f)) {
        t.fields++;
        t.last_is_number = to_number(layout, f, &value);
        t.numbers += t.last_is_number;
    }
    return t;
}

/* The separator is seen on the second line, which is data even where the first is a header. A header is a
 * first line without numbers, or with words and not as many fields as the next. second NULL: there is one line. */
static void find_layout(const text_line *one, const text_line *second, row_layout *layout, bool *header)
{
    const char *sample = second ? second->text : one->text;
    layout->separator = strchr(sample, ',')    ? ','
                        : strchr(sample, ';')  ? ';'
                        : strchr(sample, '\t') ? '\t'
                                               : ' ';
    tally first = count_fields(layout, one), next = second ? count_fields(layout, second) : first;
    *header = second && first.numbers < first.fields && (!first.numbers || first.fields != next.fields);
    if (*header) first = next;
    layout->columns = first.fields;
    layout->named = !first.last_is_number;
}

/* --- the table */

/* Where a block of rows begins. */
typedef struct block {
    int64_t offset, row;
} block;

/* What reading a row later needs: the file, and where in it rows are. The blocks are some 4 KB long, and longer in a file
 * that would have too many. */
struct ek_table_rows {
    int descriptor;
    row_layout layout;
    block *block; /* with one more, the end */
    int64_t count, room;
    int64_t longest; /* bytes of a block */
};

/* A table under way. */
typedef struct reader {
    lines lines;
    row_layout layout;
    ek_table table;
    ek_table_rows *rows;
    int64_t room;  /* rows that there is room for in `last`, and in `values` where the values are kept */
    bool dropped;  /* the values are too many to be kept */
    size_t memory; /* bytes of values to be kept */
} reader;

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

static ek_status read_number(const row_layout *layout, const text_line *line, int64_t column, field f,
                             float *out)
{
    double value;
    if (!to_number(layout, f, &value)) return complain(line, column, f, "is not a number");
    *out = (float)value;
    return isfinite(*out) ? EK_OK : complain(line, column, f, "is not finite as a 32-bit float");
}

/* All but the last column into `row`; `last`: the field of that one. */
static ek_status read_row(const row_layout *layout, const text_line *line, float *row, field *last)
{
    const char *at = line->text;
    int64_t columns = 0;
    while (next_field(layout, &at, last)) columns++;
    if (columns != layout->columns)
        return ek_fail(EK_E_FORMAT, "line %lld has %lld columns, the first row has %lld",
                       (long long)line->number, (long long)columns, (long long)layout->columns);
    at = line->text;
    for (int64_t column = 1; column < columns; column++) {
        next_field(layout, &at, last);
        EK_TRY(read_number(layout, line, column, *last, &row[column - 1]));
    }
    next_field(layout, &at, last);
    return EK_OK;
}

static ek_status read_last(reader *r, const text_line *line, field f, float *out)
{
    int64_t column = r->layout.columns;
    double value;
    if (!r->layout.named) return read_number(&r->layout, line, column, f, out);
    if (!f.length) return complain(line, column, f, "is no name");
    if (to_number(&r->layout, f, &value))
        return complain(line, column, f, "is a number where the first row has a name");
    return name_index(&r->table, line, f, out);
}

/* Room for one row more. Values beyond what is to be kept are given up, if they can be read again. */
static ek_status make_room(reader *r)
{
    ek_table *t = &r->table;
    size_t room = r->room ? 2 * (size_t)r->room : 1, width = (size_t)(r->layout.columns - 1), bytes;
    if (t->rows < r->room) return EK_OK;
    float *last = ek_grow(t->last, room, sizeof *last);
    if (!last) return EK_E_MEMORY;
    t->last = last;
    if (!r->dropped) {
        bool kept = !ek_multiply_overflows(((size_t)t->rows + 1) * sizeof(float), width, &bytes) &&
                    bytes <= r->memory;
        if (!kept && r->lines.source.stream)
            return ek_fail(
                EK_E_UNSUPPORTED,
                "its values are more than the %.3g GB of a data set that are kept in memory; unpack it "
                "with gunzip, and its rows are read when they are needed",
                (double)r->memory * 1e-9);
        r->dropped = !kept;
    }
    if (r->dropped) { /* of the row in hand alone */
        if (r->room) ek_free(t->values);
        t->values = NULL;
        EK_TRY(EK_NEW(t->values, width));
    } else {
        size_t most = width ? r->memory / (width * sizeof(float)) : room;
        size_t fitting = room <= most ? room : most; /* at least one more than now */
        float *values = ek_grow(t->values, fitting * width, sizeof *values);
        if (!values) return EK_E_MEMORY;
        t->values = values;
        room = fitting;
    }
    r->room = (int64_t)room;
    return EK_OK;
}

static ek_status note_place(reader *r, int64_t offset)
{
    ek_table_rows *rows = r->rows;
    if (!rows) return EK_OK;
    int64_t least = r->lines.source.size / MOST_BLOCKS,
            length = rows->count ? offset - rows->block[rows->count - 1].offset : 0;
    if (rows->count && length < (least > BLOCK ? least : BLOCK)) return EK_OK;
    if (rows->count + 1 >= rows->room) {
        size_t room = 2 * (size_t)rows->room + 16;
        block *grown = ek_grow(rows->block, room, sizeof *grown);
        if (!grown) return EK_E_MEMORY;
        rows->block = grown;
        rows->room = (int64_t)room;
    }
    if (length > rows->longest) rows->longest = length;
    rows->block[rows->count++] = (block){offset, r->table.rows};
    return EK_OK;
}

static ek_status add_row(reader *r, const text_line *line)
{
    ek_table *t = &r->table;
    field last;
    EK_TRY(make_room(r));
    float *row = t->values + (r->dropped ? 0 : t->rows * (t->columns - 1));
    EK_TRY(read_row(&r->layout, line, row, &last));
    EK_TRY(read_last(r, line, last, &t->last[t->rows]));
    EK_TRY(note_place(r, line->offset));
    t->rows++;
    return EK_OK;
}

/* The first two lines tell how all are to be read. */
static ek_status begin_table(reader *r)
{
    ek_status status = EK_OK;
    text_line first, second;
    bool there, header = false;
    char *copy = NULL;
    EK_TRY(next_row_line(&r->lines, &first, &there));
    if (!there) return ek_fail(EK_E_FORMAT, "it holds no rows");
    copy = ek_strdup(first.text); /* the next line may move the buffer */
    if (!copy) return EK_E_MEMORY;
    first.text = copy;
    EK_GO(next_row_line(&r->lines, &second, &there));
    find_layout(&first, there ? &second : NULL, &r->layout, &header);
    r->table.columns = r->layout.columns;
    if (r->layout.named) EK_GO(EK_NEW(r->table.names, MAX_NAMES));
    if (!header) EK_GO(add_row(r, &first));
    if (there) EK_GO(add_row(r, &second));
done:
    ek_free(copy);
    return status;
}

static ek_status read_table(reader *r)
{
    text_line line;
    bool there = true;
    EK_TRY(begin_table(r));
    for (;;) {
        EK_TRY(next_row_line(&r->lines, &line, &there));
        if (!there) return EK_OK;
        EK_TRY(add_row(r, &line));
    }
}

/* The values are not kept: what reads them later is. */
static void keep_places(reader *r)
{
    ek_table_rows *rows = r->rows;
    int64_t end = r->lines.source.size, length = end - rows->block[rows->count - 1].offset;
    if (length > rows->longest) rows->longest = length;
    rows->block[rows->count] = (block){end, r->table.rows};
    rows->descriptor = r->lines.source.descriptor;
    r->lines.source.descriptor = -1;
    rows->layout = r->layout;
    r->layout.locale = (locale_t)0;
    ek_free(r->table.values);
    r->table.values = NULL;
    r->table.file = rows;
    r->rows = NULL;
}

ek_status ek_csv_read(const char *path, size_t memory, ek_table *out)
{
    reader r = {.memory = memory};
    ek_status status = EK_OK;
    EK_TRY(lines_open(path, &r.lines));
    r.layout.locale = newlocale(LC_ALL_MASK, "C", NULL);
    if (!r.layout.locale) EK_GO(ek_fail_errno("no locale"));
    if (!r.lines.source.stream) {
        EK_GO(EK_NEW(r.rows, 1));
        r.rows->descriptor = -1;
    }
    EK_GO(read_table(&r));
    if (r.dropped) keep_places(&r);
    *out = r.table;
done:
    if (status != EK_OK) {
        ek_fail_in(status, "%s: ", path);
        ek_table_clear(&r.table);
    }
    ek_table_rows_destroy(r.rows);
    if (r.layout.locale) freelocale(r.layout.locale);
    lines_close(&r.lines);
    return status;
}

void ek_table_clear(ek_table *table)
{
    for (int i = 0; i < table->name_count; i++) ek_free(table->names[i]);
    ek_free(table->names);
    ek_free(table->values);
    ek_free(table->last);
    ek_table_rows_destroy(table->file);
    *table = (ek_table){0};
}

/* --- rows that are read later */

void ek_table_rows_destroy(ek_table_rows *rows)
{
    if (!rows) return;
    ek_file_close(&rows->descriptor);
    if (rows->layout.locale) freelocale(rows->layout.locale);
    ek_free(rows->block);
    ek_free(rows);
}

size_t ek_table_rows_scratch(const ek_table_rows *rows) { return (size_t)rows->longest + 1; }

/* The block that row `row` is in. */
static int64_t find_block(const ek_table_rows *rows, int64_t row)
{
    int64_t low = 0, high = rows->count;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (rows->block[middle].row <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static ek_status changed(int64_t row)
{
    return ek_fail(EK_E_FORMAT, "row %lld is no longer what it was when the file was opened", (long long)row);
}

/* Moves *at past the lines up to the next row, and gives that one, ended by a zero; NULL: there is none. */
static char *take_line(char **at, const char *end)
{
    while (*at < end) {
        char *text = *at, *feed = memchr(text, '\n', (size_t)(end - text));
        *at = feed ? feed + 1 : (char *)end;
        if (feed) *feed = 0;
        if (!has_row(text)) continue;
        text[strcspn(text, "\r")] = 0;
        return text;
    }
    return NULL;
}

ek_status ek_table_rows_read(const ek_table_rows *rows, const int64_t *index, int64_t n, float *out,
                             unsigned char *scratch)
{
    int64_t held = -1, next = 0; /* the block in the scratch memory, and the row that comes next in it */
    char *at = NULL, *end = NULL;
    for (int64_t i = 0; i < n; i++, out += rows->layout.columns - 1) {
        int64_t number = find_block(rows, index[i]);
        const block *b = &rows->block[number];
        if (number != held || index[i] < next) {
            size_t size = (size_t)(b[1].offset - b->offset);
            EK_TRY(ek_file_read_at(rows->descriptor, b->offset, size, scratch));
            at = (char *)scratch;
            end = at + size;
            *end = 0;
            held = number;
            next = b->row;
        }
        text_line line = {.number = index[i]};
        do line.text = take_line(&at, end);
        while (line.text && next++ < index[i]);
        field last;
        if (!line.text || read_row(&rows->layout, &line, out, &last) != EK_OK) return changed(index[i]);
    }
    return EK_OK;
}
