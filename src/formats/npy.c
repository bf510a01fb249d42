/* NPY (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html): "\x93NUMPY", version, header
 * length, a Python dict, the numbers. The dict is read by a parser for just this dict, nothing is evaluated. */
#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"
#include "formats/array_decode.h"
#include "formats/array_file.h"

#include <stdio.h>
#include <string.h>

enum { MAX_HEADER = 10000, MAGIC = 6, BEFORE_HEADER = 12 };

/* What the dict says. */
typedef struct header {
    ek_number number;
    bool big_endian, fortran;
    int rank;
    int64_t dim[EK_ARRAY_MAX_RANK];
} header;

/* --- the dict: a cursor over its text */

typedef struct cursor {
    const char *at, *end;
} cursor;

static void skip_blanks(cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n')) c->at++;
}

/* After blanks, takes `letter` if it is next. */
static bool take(cursor *c, char letter)
{
    skip_blanks(c);
    if (c->at == c->end || *c->at != letter) return false;
    c->at++;
    return true;
}

/* A quoted string without escapes. */
static bool take_string(cursor *c, const char **text, size_t *length)
{
    char quote = take(c, '\'') ? '\'' : take(c, '"') ? '"' : 0;
    if (!quote) return false;
    const char *end = memchr(c->at, quote, (size_t)(c->end - c->at));
    if (!end || memchr(c->at, '\\', (size_t)(end - c->at))) return false;
    *text = c->at;
    *length = (size_t)(end - c->at);
    c->at = end + 1;
    return true;
}

static bool take_word(cursor *c, const char *word)
{
    size_t length = strlen(word);
    skip_blanks(c);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length)) return false;
    c->at += length;
    return true;
}

static bool take_number(cursor *c, int64_t *out)
{
    skip_blanks(c);
    const char *start = c->at;
    *out = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        if (__builtin_mul_overflow(*out, 10, out) || __builtin_add_overflow(*out, *c->at - '0', out))
            return false;
        c->at++;
    }
    return c->at > start;
}

static ek_status parse_descr(cursor *c, header *h)
{
    static const struct {
        const char *name;
        ek_number number;
    } known[] = {
        {"b1", EK_NUMBER_BOOL}, {"u1", EK_NUMBER_U8},  {"i1", EK_NUMBER_I8},  {"u2", EK_NUMBER_U16},
        {"i2", EK_NUMBER_I16},  {"u4", EK_NUMBER_U32}, {"i4", EK_NUMBER_I32}, {"i8", EK_NUMBER_I64},
        {"f2", EK_NUMBER_F16},  {"f4", EK_NUMBER_F32}, {"f8", EK_NUMBER_F64},
    };
    const char *text;
    size_t length;
    if (take(c, '[')) return ek_fail(EK_E_UNSUPPORTED, "its elements are records; plain numbers are read");
    if (!take_string(c, &text, &length)) return ek_fail(EK_E_FORMAT, "its descr is not a string");
    if (length >= 2 && memchr("<>|=", text[0], 4) && text[1] == 'O')
        return ek_fail(EK_E_UNSUPPORTED,
                       "its elements are Python objects, which are never read; save an array of numbers");
    if (length == 3) {
        h->big_endian = text[0] == '>' || (text[0] == '=' && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__);
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
            if (memcmp(text + 1, known[i].name, 2)) continue;
            h->number = known[i].number;
            /* "|": byte order does not matter. */
            if (memchr("<>=", text[0], 3) || (text[0] == '|' && ek_number_size(h->number) == 1)) return EK_OK;
        }
    }
    return ek_fail(EK_E_UNSUPPORTED,
                   "its elements are '%.*s'; b1, u1, i1, u2, i2, u4, i4, i8, f2, f4 and f8 are read",
                   (int)(length < 16 ? length : 16), text);
}

static ek_status parse_shape(cursor *c, header *h)
{
    if (!take(c, '(')) return ek_fail(EK_E_FORMAT, "its shape is not a tuple");
    h->rank = 0;
    while (!take(c, ')')) {
        int64_t dim;
        if (!take_number(c, &dim))
            return ek_fail(EK_E_FORMAT, "dimension %d of its shape is not a whole number that fits", h->rank);
        if (h->rank == EK_ARRAY_MAX_RANK)
            return ek_fail(EK_E_UNSUPPORTED, "it has more than %d dimensions", EK_ARRAY_MAX_RANK);
        h->dim[h->rank++] = dim;
        if (take(c, ',')) continue;
        /* A tuple of one needs its comma. */
        if (h->rank == 1 || !take(c, ')')) return ek_fail(EK_E_FORMAT, "its shape is not a tuple");
        break;
    }
    return EK_OK;
}

static ek_status parse_dict(cursor *c, header *h)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    bool seen[3] = {false};
    if (!take(c, '{')) return ek_fail(EK_E_FORMAT, "its header is not a dict");
    while (!take(c, '}')) {
        const char *text;
        size_t length;
        if (!take_string(c, &text, &length) || !take(c, ':'))
            return ek_fail(EK_E_FORMAT, "its header is not a dict of plain keys");
        int key = 0;
        while (key < 3 && (strlen(keys[key]) != length || memcmp(keys[key], text, length))) key++;
        if (key == 3 || seen[key])
            return ek_fail(EK_E_FORMAT,
                           "its header must have just descr, fortran_order and shape, each once");
        seen[key] = true;
        if (key == 0) EK_TRY(parse_descr(c, h));
        if (key == 1) {
            h->fortran = take_word(c, "True");
            if (!h->fortran && !take_word(c, "False"))
                return ek_fail(EK_E_FORMAT, "its fortran_order is neither True nor False");
        }
        if (key == 2) EK_TRY(parse_shape(c, h));
        if (take(c, ',')) continue;
        if (!take(c, '}')) return ek_fail(EK_E_FORMAT, "its header is not a dict");
        break;
    }
    if (!seen[0] || !seen[1] || !seen[2])
        return ek_fail(EK_E_FORMAT, "its header lacks descr, fortran_order or shape");
    skip_blanks(c);
    return c->at == c->end ? EK_OK : ek_fail(EK_E_FORMAT, "its header goes on after the dict");
}

/* --- the file */

/* Finds the dict in the file's first bytes, and where the data begins after it. */
static ek_status parse_file(const unsigned char *bytes, size_t size, header *h, int64_t *data)
{
    if (size < MAGIC || memcmp(bytes, "\x93NUMPY", MAGIC))
        return ek_fail(EK_E_FORMAT, "it is not an NPY file");
    int major = size > MAGIC ? bytes[MAGIC] : 0;
    size_t start = major == 1 ? 10 : 12;
    if (size < start) return ek_fail(EK_E_FORMAT, "it is cut short inside its header");
    if (major < 1 || major > 3 || bytes[MAGIC + 1] != 0)
        return ek_fail(EK_E_UNSUPPORTED, "it has NPY version %d.%d; 1.0, 2.0 and 3.0 are read", major,
                       bytes[MAGIC + 1]);
    size_t length = bytes[8] | (size_t)bytes[9] << 8;
    if (major > 1) length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    if (length > MAX_HEADER)
        return ek_fail(EK_E_FORMAT, "its header of %zu bytes is longer than the %d that are read", length,
                       MAX_HEADER);
    if (length > size - start) return ek_fail(EK_E_FORMAT, "it is cut short inside its header");
    cursor c = {(const char *)bytes + start, (const char *)bytes + start + length};
    *data = (int64_t)(start + length);
    return parse_dict(&c, h);
}

/* The shape's product, held against the bytes that are there. */
static ek_status count_elements(const header *h, size_t there, int64_t *count)
{
    size_t needed;
    *count = 1;
    bool fits = true;
    for (int i = 0; i < h->rank; i++) fits = fits && !__builtin_mul_overflow(*count, h->dim[i], count);
    if (!fits || ek_multiply_overflows((size_t)*count, ek_number_size(h->number), &needed))
        return ek_fail(EK_E_FORMAT, "the product of its shape overflows");
    if (there < needed)
        return ek_fail(EK_E_FORMAT, "it is cut short: its shape needs %zu bytes, %zu are there", needed,
                       there);
    if (there > needed) return ek_fail(EK_E_FORMAT, "%zu bytes follow after its data", there - needed);
    return EK_OK;
}

/* Copies the elements into C order. Fortran's has the first index fastest. */
static void reorder(const header *h, size_t size, int64_t count, const unsigned char *from, unsigned char *to)
{
    int64_t index[EK_ARRAY_MAX_RANK] = {0}, stride[EK_ARRAY_MAX_RANK], place = 0;
    for (int i = 0; i < h->rank; i++) stride[i] = i ? stride[i - 1] * h->dim[i - 1] : 1;
    for (int64_t n = 0; n < count; n++, to += size) {
        memcpy(to, from + (size_t)place * size, size);
        for (int i = h->rank - 1; i >= 0; i--) {
            place += stride[i];
            if (++index[i] < h->dim[i]) break;
            place -= stride[i] * h->dim[i];
            index[i] = 0;
        }
    }
}

ek_status ek_npy_open(const char *path, ek_array_file *out)
{
    unsigned char first[BEFORE_HEADER + MAX_HEADER];
    ek_array_file file = {.descriptor = -1};
    header h = {0};
    int64_t size;
    EK_TRY(ek_file_open(path, &file.descriptor, &size));
    ek_status status = EK_OK;
    int64_t there = size < (int64_t)sizeof first ? size : (int64_t)sizeof first;
    EK_GO(ek_file_read_at(file.descriptor, 0, (size_t)there, first));
    EK_GO(parse_file(first, (size_t)there, &h, &file.offset));
    EK_GO(count_elements(&h, (size_t)(size - file.offset), &file.count));
    file.number = h.number;
    file.big_endian = h.big_endian;
    file.fortran = h.fortran && h.rank > 1;
    file.rank = h.rank;
    memcpy(file.dim, h.dim, sizeof file.dim);
    *out = file;
    file.descriptor = -1;
done:
    ek_array_file_close(&file);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "%s: ", path);
}

/* The whole of it in C order. */
static ek_status read_reordered(const ek_array_file *file, ek_array *array)
{
    header h = {.rank = file->rank};
    size_t width = ek_number_size(file->number);
    unsigned char *raw = NULL, *ordered = NULL;
    ek_status status = EK_OK;
    memcpy(h.dim, file->dim, sizeof h.dim);
    EK_GO(EK_NEW(raw, (size_t)file->count * width));
    EK_GO(ek_array_file_read(file, 0, file->count, raw));
    EK_GO(EK_NEW(ordered, (size_t)file->count * width));
    reorder(&h, width, file->count, raw, ordered);
    ek_free(raw);
    raw = NULL;
    array->count = file->count;
    EK_GO(ek_array_decode(array, file->number, file->big_endian, ordered));
done:
    ek_free(ordered);
    ek_free(raw);
    return status;
}

ek_status ek_npy_read(const char *path, ek_array *out)
{
    ek_array array = {0};
    ek_array_file file;
    EK_TRY(ek_npy_open(path, &file));
    ek_status status = EK_OK;
    EK_GO(file.fortran ? read_reordered(&file, &array) : ek_array_file_part(&file, 0, file.count, &array));
    array.rank = file.rank;
    memcpy(array.dim, file.dim, sizeof array.dim);
    *out = array;
done:
    if (status != EK_OK) {
        ek_fail_in(status, "%s: ", path);
        ek_array_clear(&array);
    }
    ek_array_file_close(&file);
    return status;
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are written as they lie in memory");

ek_status ek_npy_write(const char *path, int rank, const int64_t *dim, const float *data)
{
    ek_status status = EK_OK;
    ek_text text = {0};
    ek_replacement file = {0};
    size_t count = 1;
    for (int i = 0; i < rank; i++) count *= (size_t)dim[i];
    ek_text_add(&text, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (int i = 0; i < rank; i++)
        ek_text_add(&text, i + 1 < rank ? "%lld, " : rank == 1 ? "%lld," : "%lld", (long long)dim[i]);
    ek_text_add(&text, "), }");
    EK_GO(ek_text_status(&text));
    /* Blanks and a line feed make the data begin at a multiple of 64. */
    size_t start = (10 + text.length + 1 + 63) / 64 * 64, length = start - 10;
    const unsigned char prefix[10] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)length, (unsigned char)(length >> 8)};
    ek_text_add(&text, "%*s\n", (int)(length - text.length - 1), "");
    EK_GO(ek_text_status(&text));
    EK_GO(ek_replace_begin(&file, path));
    EK_GO(ek_replace_write(&file, prefix, sizeof prefix));
    EK_GO(ek_replace_write(&file, text.data, text.length));
    EK_GO(ek_replace_write(&file, data, count * sizeof *data));
    EK_GO(ek_replace_finish(&file));
done:
    ek_replace_cancel(&file);
    ek_text_free(&text);
    return status;
}
