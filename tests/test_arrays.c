/* IDX, gzip, NPY, CSV and PNG: what is read, and that whatever is wrong is refused in words. */
#include "images.h"
#include "testing.h"

#include "scratch.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/random.h"
#include "formats/arrays.h"

#include <math.h>
#include <sys/resource.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

/* Cut to size after writing: file systems sync a file that was emptied and written anew, which takes long. */
static void put(const void *bytes, size_t size)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fflush(file), 0);
    assert_int_equal(ftruncate(fileno(file), (off_t)size), 0);
    assert_int_equal(fclose(file), 0);
}

/* A literal, zeros and all. */
#define PUT(literal) put((literal), sizeof(literal) - 1)

static size_t gzip(const void *bytes, size_t size, unsigned char *out, size_t room)
{
    z_stream z = {
        .next_in = (Bytef *)bytes, .avail_in = (uInt)size, .next_out = out, .avail_out = (uInt)room};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static void refuse_idx(ek_status status, const char *words)
{
    ek_array array;
    assert_fails(status, words, ek_idx_read(path, &array));
    assert_non_null(strstr(ek_error(), path));
}

/* --- IDX */

static const char images[] = "\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x03"
                             "abcdef";

static void idx_is_read(void **state)
{
    (void)state;
    ek_array a;
    PUT(images);
    assert_ok(ek_idx_read(path, &a));
    assert_true(a.type == EK_ARRAY_U8 && a.rank == 3 && a.dim[0] == 2 && a.dim[1] == 1 && a.dim[2] == 3 &&
                a.count == 6);
    assert_memory_equal(a.data, "abcdef", 6);
    ek_array_clear(&a);
    PUT("\0\0\x09\x01\0\0\0\x01\xff");
    assert_ok(ek_idx_read(path, &a));
    assert_true(a.type == EK_ARRAY_I64 && *(int64_t *)a.data == -1);
    ek_array_clear(&a);
    PUT("\0\0\x0B\x01\0\0\0\x01\xff\xfe");
    assert_ok(ek_idx_read(path, &a));
    assert_true(*(int64_t *)a.data == -2);
    ek_array_clear(&a);
    PUT("\0\0\x0C\x01\0\0\0\x01\0\x01\0\0");
    assert_ok(ek_idx_read(path, &a));
    assert_true(*(int64_t *)a.data == 65536);
    ek_array_clear(&a);
    PUT("\0\0\x0D\x01\0\0\0\x01\xc0\x20\0\0");
    assert_ok(ek_idx_read(path, &a));
    assert_true(a.type == EK_ARRAY_F32 && *(float *)a.data == -2.5f);
    ek_array_clear(&a);
    PUT("\0\0\x0E\x01\0\0\0\x01\x3f\xe0\0\0\0\0\0\0");
    assert_ok(ek_idx_read(path, &a));
    assert_true(*(float *)a.data == 0.5f);
    ek_array_clear(&a);
}

static void idx_is_refused(void **state)
{
    (void)state;
    ek_array a;
    assert_fails(EK_E_NOT_FOUND, "cannot open /no/such", ek_idx_read("/no/such", &a));
    assert_fails(EK_E_IO, "a folder", ek_idx_read("/tmp", &a));
    PUT("");
    refuse_idx(EK_E_FORMAT, "cut short: the IDX header");
    PUT("\0\0\x08");
    refuse_idx(EK_E_FORMAT, "cut short: the IDX header");
    PUT("\x93NUMPY");
    refuse_idx(EK_E_FORMAT, "not an IDX file: it begins with 93 4e 55 4d");
    PUT("\0\0\x07\x01\0\0\0\x01x");
    refuse_idx(EK_E_FORMAT, "not an IDX file");
    PUT("\0\0\x08\0x");
    refuse_idx(EK_E_FORMAT, "0 dimensions");
    PUT("\0\0\x08\x06");
    refuse_idx(EK_E_FORMAT, "6 dimensions");
    PUT("\0\0\x08\x02\0\0\0\x01\0\0");
    refuse_idx(EK_E_FORMAT, "cut short: a dimension");
    PUT("\0\0\x08\x01\0\0\0\x04"
        "abc");
    refuse_idx(EK_E_FORMAT, "promises more data than it can hold");
    PUT("\0\0\x0E\x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    refuse_idx(EK_E_FORMAT, "promises more data than it can hold");
    PUT("\0\0\x0E\x02\x7f\xff\xff\xff\xff\xff\xff\xff");
    refuse_idx(EK_E_FORMAT, "promises more data than it can hold");
    PUT("\0\0\x08\x01\0\0\0\x02"
        "abc");
    refuse_idx(EK_E_FORMAT, "goes on after the data");
    PUT("\0\0\x0E\x01\0\0\0\x01\x7e\xe0\0\0\0\0\0\0");
    refuse_idx(EK_E_FORMAT, "too large for a 32-bit float");
}

static void gzip_is_unpacked_and_checked(void **state)
{
    (void)state;
    unsigned char packed[256];
    size_t size = gzip(images, sizeof images - 1, packed, sizeof packed - 8);
    ek_array a;
    put(packed, size);
    assert_ok(ek_idx_read(path, &a));
    assert_memory_equal(a.data, "abcdef", 6);
    ek_array_clear(&a);
    /* Cut anywhere: never half an array. */
    for (size_t cut = 2; cut < size; cut++) {
        put(packed, cut);
        refuse_idx(EK_E_FORMAT, "cut short");
    }
    memcpy(packed + size, "more", 4);
    put(packed, size + 4);
    refuse_idx(EK_E_FORMAT, "4 bytes follow after the end of the gzip data");
    packed[size - 5] ^= 1;
    put(packed, size);
    refuse_idx(EK_E_FORMAT, "the gzip data is broken: incorrect data check");
    packed[size - 5] ^= 1;
    packed[size - 1] ^= 1;
    put(packed, size);
    refuse_idx(EK_E_FORMAT, "the gzip data is broken: incorrect length check");
    packed[2] = 9;
    put(packed, size);
    refuse_idx(EK_E_FORMAT, "the gzip data is broken");
}

static void gzip_bombs_stay_small(void **state)
{
    (void)state;
    unsigned char packed[4096];
    enum { LONG = 1 << 20 };
    char *data = calloc(LONG, 1);
    assert_non_null(data);
    /* A header that promises three bytes, a megabyte behind it. */
    memcpy(data, "\0\0\x08\x01\0\0\0\x03", 8);
    put(packed, gzip(data, LONG, packed, sizeof packed));
    refuse_idx(EK_E_FORMAT, "goes on after the data");
    /* A header that promises four gigabytes. */
    memcpy(data, "\0\0\x08\x01\xff\xff\xff\xff", 8);
    put(packed, gzip(data, LONG, packed, sizeof packed));
    refuse_idx(EK_E_FORMAT, "promises more data than it can hold");
    assert_true(ek_memory_count().peak_bytes < 16 << 20);
    free(data);
}

/* A few kilobytes of packed line feeds, with nothing on any of the lines. */
static void packed_lines_take_no_memory(void **state)
{
    (void)state;
    enum { LINES = 1 << 24, ROOM = 1 << 16 };
    char *lines = malloc(LINES);
    unsigned char *packed = malloc(ROOM);
    assert_non_null(lines);
    assert_non_null(packed);
    memset(lines, '\n', LINES);
    put(packed, gzip(lines, LINES, packed, ROOM));
    ek_table table;
    assert_fails(EK_E_FORMAT, "it holds no rows", ek_csv_read(path, SIZE_MAX, &table));
    free(packed);
    free(lines);
}

/* --- NPY */

/* Version 1.0 with this dict, unpadded, and these data. */
static void put_npy(const char *dict, const void *data, size_t size)
{
    unsigned char file[512] = "\x93NUMPY\x01";
    size_t length = strlen(dict);
    file[8] = (unsigned char)length;
    file[9] = (unsigned char)(length >> 8);
    memcpy(file + 10, dict, length);
    memcpy(file + 10 + length, data, size);
    put(file, 10 + length + size);
}
#define NPY(descr, shape, data) \
    put_npy("{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }\n", data, sizeof(data) - 1)

static void npy_value(double expected)
{
    ek_array a;
    assert_ok(ek_npy_read(path, &a));
    assert_int_equal(a.count, 1);
    double value = a.type == EK_ARRAY_U8    ? *(unsigned char *)a.data
                   : a.type == EK_ARRAY_I64 ? (double)*(int64_t *)a.data
                                            : *(float *)a.data;
    if (value != expected) fail_msg("read %g, not %g", value, expected);
    ek_array_clear(&a);
}

static void npy_is_read_in_every_type(void **state)
{
    (void)state;
    NPY("|b1", "(1,)", "\1");
    npy_value(1);
    NPY("|u1", "(1,)", "\xff");
    npy_value(255);
    NPY("|i1", "(1,)", "\xff");
    npy_value(-1);
    NPY("<u2", "(1,)", "\xff\xfe");
    npy_value(0xfeff);
    NPY(">u2", "(1,)", "\xff\xfe");
    npy_value(0xfffe);
    NPY("<i2", "(1,)", "\xfe\xff");
    npy_value(-2);
    NPY(">u4", "(1,)", "\xff\0\0\1");
    npy_value(4278190081.0);
    NPY("=i4", "(1,)", "\1\0\0\0");
    npy_value(1);
    NPY(">i8", "(1, 1)", "\0\0\0\1\0\0\0\0");
    npy_value(4294967296.0);
    NPY("<f2", "()", "\0\x3c");
    npy_value(1);
    NPY(">f4", "(1,)", "\xc0\x20\0\0");
    npy_value(-2.5);
    NPY("<f8", "(1,)", "\0\0\0\0\0\0\xe0\x3f");
    npy_value(0.5);
    /* double quotes, another order, no comma at the end */
    put_npy("{\"shape\":(1,1,1,1,1),\"descr\":\"<f4\",\"fortran_order\":True}", "\0\0\x80\x3f", 4);
    npy_value(1);
    /* versions 2.0 and 3.0 */
    PUT("\x93NUMPY\2\0\x39\0\0\0{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }x");
    npy_value('x');
    PUT("\x93NUMPY\3\0\x39\0\0\0{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }x");
    npy_value('x');
}

static void npy_fortran_order_becomes_c_order(void **state)
{
    (void)state;
    /* a[i,j,k] = 6i + 2j + k of shape [2,3,2], written with i fastest */
    unsigned char data[12], n = 0;
    for (int k = 0; k < 2; k++) {
        for (int j = 0; j < 3; j++) {
            for (int i = 0; i < 2; i++) data[n++] = (unsigned char)(6 * i + 2 * j + k);
        }
    }
    put_npy("{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 2), }", data, sizeof data);
    ek_array a;
    assert_ok(ek_npy_read(path, &a));
    for (int i = 0; i < 12; i++) assert_int_equal(((unsigned char *)a.data)[i], i);
    ek_array_clear(&a);
}

static void refuse_npy(ek_status status, const char *words)
{
    ek_array array;
    assert_fails(status, words, ek_npy_read(path, &array));
    assert_non_null(strstr(ek_error(), path));
}

static void refuse_dict(ek_status status, const char *words, const char *dict)
{
    put_npy(dict, "0123", 4);
    refuse_npy(status, words);
}

static void npy_is_refused(void **state)
{
    (void)state;
    PUT("");
    refuse_npy(EK_E_FORMAT, "not an NPY file");
    PUT("\x93NUMPX\1\0\1\0x");
    refuse_npy(EK_E_FORMAT, "not an NPY file");
    PUT("\x93NUMPY");
    refuse_npy(EK_E_FORMAT, "cut short inside its header");
    PUT("\x93NUMPY\1\0\xff\0{");
    refuse_npy(EK_E_FORMAT, "cut short inside its header");
    PUT("\x93NUMPY\4\0\1\0\0\0{");
    refuse_npy(EK_E_UNSUPPORTED, "version 4.0");
    PUT("\x93NUMPY\1\1\1\0\0\0{");
    refuse_npy(EK_E_UNSUPPORTED, "version 1.1");
    PUT("\x93NUMPY\2\0\xff\xff\xff\xff{");
    refuse_npy(EK_E_FORMAT, "longer than the 10000");
    NPY("<f4", "(1,)", "abc");
    refuse_npy(EK_E_FORMAT, "cut short: its shape needs 4 bytes, 3 are there");
    NPY("<f4", "(1,)", "abcde");
    refuse_npy(EK_E_FORMAT, "1 bytes follow after its data");
    NPY("|b1", "(2,)", "\1\2");
    refuse_npy(EK_E_FORMAT, "element 1 is a boolean of value 2");
    NPY("<f8", "(1,)", "\0\0\0\0\0\0\xe0\x7e");
    refuse_npy(EK_E_FORMAT, "too large for a 32-bit float");
#define REST "'fortran_order': False, 'shape': (4,)"
    refuse_dict(EK_E_UNSUPPORTED, "Python objects", "{'descr': '|O', " REST "}");
    refuse_dict(EK_E_UNSUPPORTED, "Python objects", "{'descr': '|O8', " REST "}");
    refuse_dict(EK_E_UNSUPPORTED, "records", "{'descr': [('a', '<f4')], " REST "}");
    refuse_dict(EK_E_UNSUPPORTED, "its elements are '<c8'", "{'descr': '<c8', " REST "}");
    refuse_dict(EK_E_UNSUPPORTED, "its elements are '|f4'", "{'descr': '|f4', " REST "}");
    refuse_dict(EK_E_UNSUPPORTED, "its elements are ''", "{'descr': '', " REST "}");
    refuse_dict(EK_E_FORMAT, "descr is not a string", "{'descr': 4, " REST "}");
    refuse_dict(EK_E_FORMAT, "descr is not a string", "{'descr': '\\x7c' , " REST "}");
    refuse_dict(EK_E_FORMAT, "not a dict", "[]");
    refuse_dict(EK_E_FORMAT, "not a dict", "{'descr': '|u1', " REST);
    refuse_dict(EK_E_FORMAT, "lacks descr", "{}");
    refuse_dict(EK_E_FORMAT, "lacks descr", "{" REST "}");
    refuse_dict(EK_E_FORMAT, "each once", "{'descr': '|u1', " REST ", 'shape': (4,)}");
    refuse_dict(EK_E_FORMAT, "each once", "{'descr': '|u1', " REST ", 'more': (4,)}");
    refuse_dict(EK_E_FORMAT, "plain keys", "{'descr': '|u1', " REST ", shape: (4,)}");
    refuse_dict(EK_E_FORMAT, "goes on after the dict", "{'descr': '|u1', " REST "} + exit()");
    refuse_dict(EK_E_FORMAT, "neither True nor False", "{'fortran_order': 1}");
#define SHAPE(shape) "{'descr': '<f8', 'fortran_order': True, 'shape': " shape "}"
    refuse_dict(EK_E_FORMAT, "not a tuple", SHAPE("4"));
    refuse_dict(EK_E_FORMAT, "not a tuple", SHAPE("(4)"));
    refuse_dict(EK_E_FORMAT, "not a tuple", SHAPE("(4, 4"));
    refuse_dict(EK_E_FORMAT, "dimension 0", SHAPE("(-4,)"));
    refuse_dict(EK_E_FORMAT, "dimension 0", SHAPE("(,)"));
    refuse_dict(EK_E_FORMAT, "dimension 1", SHAPE("(4, 99999999999999999999)"));
    refuse_dict(EK_E_UNSUPPORTED, "more than 5 dimensions", SHAPE("(1, 1, 1, 1, 1, 1)"));
    refuse_dict(EK_E_FORMAT, "the product of its shape overflows", SHAPE("(4294967296, 4294967296)"));
    refuse_dict(EK_E_FORMAT, "the product of its shape overflows", SHAPE("(4611686018427387904,)"));
    refuse_dict(EK_E_FORMAT, "cut short", SHAPE("(1000000000000,)"));
}

static void npy_is_written_as_it_is_read(void **state)
{
    (void)state;
    const float data[] = {1, -2, 0.5f, 4, 5, 6};
    const ek_shape shapes[] = {{2, {2, 3}}, {1, {6}}, {4, {1, 3, 1, 2}}};
    for (int i = 0; i < 3; i++) {
        ek_shape shape;
        float *back;
        assert_ok(ek_array_write(path, shapes[i], data));
        assert_ok(ek_array_read(path, &shape, &back));
        assert_int_equal(shape.rank, shapes[i].rank);
        assert_memory_equal(shape.dim, shapes[i].dim, sizeof shape.dim);
        assert_memory_equal(back, data, sizeof data);
        ek_array_free(back);
    }
    unsigned char *bytes;
    size_t size;
    assert_ok(ek_file_read(path, 4096, &bytes, &size));
    assert_int_equal((size - sizeof data) % 64, 0);
    ek_free(bytes);
    ek_shape number;
    float *one;
    assert_ok(ek_array_write(path, (ek_shape){0}, data));
    assert_ok(ek_array_read(path, &number, &one));
    assert_true(number.rank == 0 && *one == 1);
    ek_array_free(one);
}

static void arrays_are_read_as_floats(void **state)
{
    (void)state;
    ek_shape shape;
    float *data;
    NPY("|u1", "(2,)", "\0\xff");
    assert_ok(ek_array_read(path, &shape, &data));
    assert_true(data[0] == 0 && data[1] == 1);
    ek_array_free(data);
    NPY("<i2", "(1,)", "\x2c\x01");
    assert_ok(ek_array_read(path, &shape, &data));
    assert_true(data[0] == 300);
    ek_array_free(data);
    NPY("<i4", "(1,)", "\1\0\0\1");
    assert_fails(EK_E_FORMAT, "cannot hold exactly", ek_array_read(path, &shape, &data));
    NPY("|u1", "(1, 1, 1, 1, 1)", "x"); /* a batch of four dimensions */
    assert_ok(ek_array_read(path, &shape, &data));
    assert_true(shape.rank == 5 && data[0] == 'x' / 255.0f);
    ek_array_free(data);
    NPY("|u1", "(1, 1, 1, 1, 1, 1)", "x");
    assert_fails(EK_E_UNSUPPORTED, "more than 5 dimensions", ek_array_read(path, &shape, &data));
    ek_array a;
    PUT("\x7f"
        "ELF");
    assert_fails(EK_E_FORMAT, "neither an IDX nor an NPY file", ek_array_load(path, &a));
}

/* --- CSV */

static void csv_is(const char *text, int64_t rows, int64_t columns, const float *values)
{
    ek_table t;
    put(text, strlen(text));
    assert_ok(ek_csv_read(path, SIZE_MAX, &t));
    assert_int_equal(t.rows, rows);
    assert_int_equal(t.columns, columns);
    for (int64_t i = 0; i < rows * columns; i++) {
        int64_t row = i / columns, column = i % columns;
        float value = column == columns - 1 ? t.last[row] : t.values[row * (columns - 1) + column];
        if (value != values[i]) fail_msg("\"%s\": value %d is %g, not %g", text, (int)i, value, values[i]);
    }
    ek_table_clear(&t);
}

static void csv_is_read(void **state)
{
    (void)state;
    const float v[] = {1, -2.5f, 3, 4, 5e3f, 6};
    csv_is("1,-2.5,3\n4,5e3,6", 2, 3, v);
    csv_is("1, -2.5 ,3\r\n\r\n  \n# words, here\n4,5e3,6\r\n", 2, 3, v);
    csv_is("a;b;c\n1;-2.5;3\n4;5e3;6\n", 2, 3, v);
    csv_is("\xef\xbb\xbf\"a\"\t\"b, c\"\td\n1\t-2.5\t3\n4\t5e3\t6\n", 2, 3, v);
    csv_is("  1   -2.5\t3  \n4 5e3 6\n", 2, 3, v);
    csv_is("\"1\",\"-2.5\",3\n4,5e3,6\n", 2, 3, v);
    csv_is("2,3,good,bad\n1,-2.5,3\n4,5e3,6\n", 2, 3, v);
}

static void csv_names_become_numbers(void **state)
{
    (void)state;
    ek_table t;
    PUT("length,kind\n1,setosa\n2,\"virginica, late\"\n3,setosa\n");
    assert_ok(ek_csv_read(path, SIZE_MAX, &t));
    assert_int_equal(t.rows, 3);
    assert_int_equal(t.name_count, 2);
    assert_string_equal(t.names[0], "setosa");
    assert_string_equal(t.names[1], "virginica, late");
    assert_true(t.last[0] == 0 && t.last[1] == 1 && t.last[2] == 0);
    ek_table_clear(&t);
    unsigned char packed[128];
    put(packed, gzip("1,a\n", 4, packed, sizeof packed));
    assert_ok(ek_csv_read(path, SIZE_MAX, &t));
    assert_true(t.rows == 1 && t.columns == 2);
    ek_table_clear(&t);
}

static void refuse_csv(const char *words, const char *text)
{
    ek_table t;
    put(text, strlen(text));
    assert_fails(EK_E_FORMAT, words, ek_csv_read(path, SIZE_MAX, &t));
    assert_non_null(strstr(ek_error(), path));
}

static void csv_is_refused(void **state)
{
    (void)state;
    ek_table t;
    assert_fails(EK_E_NOT_FOUND, "/no/such.csv", ek_csv_read("/no/such.csv", SIZE_MAX, &t));
    refuse_csv("no rows", "");
    refuse_csv("no rows", "\n# nothing\n");
    refuse_csv("line 3 has 2 columns, the first row has 3", "1,2,3\n\n4,5\n");
    refuse_csv("line 2 has 4 columns", "1,2,3\n4,5,6,7\n");
    refuse_csv("line 2, column 2: 'x' is not a number", "1,2,3\n4,x,6\n");
    refuse_csv("line 1, column 2: 'abc' is not a number", "1,abc,3\n4,5,6\n");
    refuse_csv("line 2, column 3: 'six' is not a number", "1,2,3\n4,5,six\n");
    refuse_csv("line 2, column 3: '6' is a number where", "1,2,three\n4,5,6\n");
    refuse_csv("line 2, column 3: '' is no name", "1,2,three\n4,5,\n");
    refuse_csv("line 1, column 2: '' is not a number", "1,,3\n4,5,6\n");
    refuse_csv("line 2, column 1: 'nan' is not finite", "1,2\nnan,2\n");
    refuse_csv("line 2, column 1: '1e39' is not finite", "1,2\n1e39,2\n");
    refuse_csv("'?[2J' is not a number", "1,2\n\x1b[2J,2\n");
    PUT("1,2\n\0,3\n");
    assert_fails(EK_E_FORMAT, "not a text", ek_csv_read(path, SIZE_MAX, &t));
    char *many = malloc(1001 * 16), *end = many;
    assert_non_null(many);
    for (int i = 0; i < 1001; i++) end += sprintf(end, "1,n%d\n", i);
    refuse_csv("line 1001: more than 1000 different names", many);
    free(many);
}

/* --- PNG */

static bool png_is_there(void)
{
    ek_array a;
    unsigned char file[512];
    put(file, make_png(file, 1, 1, 0, "\0x", 2));
    ek_status status = ek_image_read(path, 1, &a);
    if (status == EK_E_UNSUPPORTED) return false;
    assert_ok(status);
    ek_array_clear(&a);
    return true;
}

static void png_is(int channels, const void *expected, size_t size)
{
    ek_array a;
    assert_ok(ek_image_read(path, channels, &a));
    assert_true(a.type == EK_ARRAY_U8 && a.rank == 3 && a.dim[0] == channels);
    assert_int_equal(a.count, size);
    assert_memory_equal(a.data, expected, size);
    ek_array_clear(&a);
}

static void png_is_read(void **state)
{
    (void)state;
    if (!png_is_there()) skip();
    unsigned char file[512];
    put(file, make_png(file, 2, 1, 0, "\0\x10\xf0", 3));
    png_is(1, "\x10\xf0", 2);
    png_is(3, "\x10\xf0\x10\xf0\x10\xf0", 6);
    put(file, make_png(file, 2, 1, 2, "\0\xff\0\0\x01\x02\x03", 7));
    png_is(3, "\xff\x01\0\x02\0\x03", 6);
    png_is(1, "\x4c\x02", 2); /* 0.299*255 = 76.2 */
    put(file, make_png(file, 2, 1, 6, "\0\xff\xff\xff\x80\xff\xff\xff\0", 9));
    png_is(1, "\x80\0", 2); /* over black */
}

/* libpng makes room for a part by what that says of itself: here some 2 GB, in 60 bytes. */
static void png_parts_take_no_more_room_than_they_have(void **state)
{
    (void)state;
    if (!png_is_there()) skip();
    static const char file[] = "\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x05\x00\x00\x02\x03\x10"
                               "\x06\x00\x00\x01\xeb\x3e\x38\x04\x00\x00\x00\x04\x67\x41\x4d\x41\x49\x44\x41\x54\x9f\xce\xb9\x4f\x78"
                               "\xcb\x00\x8b\x7a\x54\x58\x74\x26\x79\xcf";
    ek_array a;
    struct rusage use;
    put(file, sizeof file - 1);
    assert_fails(EK_E_FORMAT, "PNG", ek_image_read(path, 1, &a));
    assert_int_equal(getrusage(RUSAGE_SELF, &use), 0);
    assert_true(use.ru_maxrss < 1 << 20); /* KiB */
}

static void png_is_refused(void **state)
{
    (void)state;
    if (!png_is_there()) skip();
    ek_array a;
    unsigned char file[512];
    size_t size = make_png(file, 2, 2, 0, "\0ab\0cd", 6);
    put(file, size);
    assert_fails(EK_E_SHAPE, "1 or 3 channels, not 2", ek_image_read(path, 2, &a));
    for (size_t cut = 0; cut < size - 12; cut++) { /* the end's own chunk may be missing */
        put(file, cut);
        assert_fails(EK_E_FORMAT, "PNG", ek_image_read(path, 1, &a));
    }
    file[size - 20] ^= 1;
    put(file, size);
    assert_fails(EK_E_FORMAT, "broken PNG", ek_image_read(path, 1, &a));
    put(file, make_png(file, 5000, 1, 0, "\0", 1));
    assert_fails(EK_E_UNSUPPORTED, "5000 x 1 pixels", ek_image_read(path, 1, &a));
    put(file, make_png(file, 4096, 4096, 0, "\0", 1)); /* some 70 bytes, and 64 MiB of pixels */
    assert_fails(EK_E_FORMAT, "4096 x 4096 pixels cannot be in its", ek_image_read(path, 1, &a));
    PUT("words");
    assert_fails(EK_E_FORMAT, "neither a PNG nor a JPEG", ek_image_read(path, 1, &a));
}

/* --- damage: whatever bytes change, the answer is an array or an error, and memory stays small */

static void read_anything(void)
{
    ek_array a;
    ek_table t;
    if (ek_array_load(path, &a) == EK_OK) ek_array_clear(&a);
    if (ek_csv_read(path, SIZE_MAX, &t) == EK_OK) ek_table_clear(&t);
    if (ek_image_read(path, 3, &a) == EK_OK) ek_array_clear(&a);
}

static void damage(const void *valid, size_t size, uint32_t seed)
{
    unsigned char bytes[1024];
    ek_random random = ek_random_start(1, EK_STREAM_TEST, seed);
    for (int round = 0; round < 3000; round++) {
        memcpy(bytes, valid, size);
        size_t length = size;
        for (uint64_t n = ek_random_below(&random, 6) + 1; n; n--) {
            unsigned char *at = bytes + ek_random_below(&random, size);
            switch (ek_random_below(&random, 3)) {
            case 0: *at = (unsigned char)ek_random_u32(&random); break;
            case 1: *at ^= (unsigned char)(1u << ek_random_below(&random, 8)); break;
            default: *at = "\0\xff\x7f,;\"\n'(){}09-"[ek_random_below(&random, 16)]; break;
            }
        }
        if (ek_random_below(&random, 4) == 0) length = ek_random_below(&random, size);
        put(bytes, length);
        read_anything();
    }
    assert_true(ek_memory_count().peak_bytes < 160 << 20);
}

static void damage_is_survived(void **state)
{
    (void)state;
    unsigned char file[512];
    size_t live = ek_memory_count().live_bytes;
    damage(images, sizeof images - 1, 1);
    damage(file, gzip(images, sizeof images - 1, file, sizeof file), 2);
    static const char npy[] =
        "\x93NUMPY\1\0\x3b\0{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3, 1)}\n0123456789ab";
    damage(npy, sizeof npy - 1, 3);
    static const char csv[] = "length;\"the width\";kind\n1.5;2e1;good\n-3;4;\"bad\"\n# five\n5;6;good\n";
    damage(csv, sizeof csv - 1, 4);
    damage(file, make_png(file, 2, 2, 6, "\0abcdefgh\1ijklmnop", 18), 5);
    damage(colour_jpeg, sizeof colour_jpeg, 6);
    damage(progressive_jpeg, sizeof progressive_jpeg, 7);
    assert_int_equal(ek_memory_count().live_bytes, live);
}

/* Every allocation fails in turn; nothing is lost. */
static void want_of_memory_is_survived(void **state)
{
    (void)state;
    ek_array a;
    ek_table t;
    put_npy("{'descr': '<i2', 'fortran_order': True, 'shape': (1,), }\n", "\x2c\x01", 2);
    for (failing f = {0}; fail_next(&f);) {
        f.status = ek_array_load(path, &a);
        if (f.status == EK_OK) ek_array_clear(&a);
    }
    PUT("1,a\n2,b\n");
    for (failing f = {0}; fail_next(&f);) {
        f.status = ek_csv_read(path, SIZE_MAX, &t);
        if (f.status == EK_OK) ek_table_clear(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idx_is_read),
        cmocka_unit_test(idx_is_refused),
        cmocka_unit_test(gzip_is_unpacked_and_checked),
        cmocka_unit_test(gzip_bombs_stay_small),
        cmocka_unit_test(packed_lines_take_no_memory),
        cmocka_unit_test(npy_is_read_in_every_type),
        cmocka_unit_test(npy_fortran_order_becomes_c_order),
        cmocka_unit_test(npy_is_refused),
        cmocka_unit_test(npy_is_written_as_it_is_read),
        cmocka_unit_test(arrays_are_read_as_floats),
        cmocka_unit_test(csv_is_read),
        cmocka_unit_test(csv_names_become_numbers),
        cmocka_unit_test(csv_is_refused),
        cmocka_unit_test(png_is_read),
        cmocka_unit_test(png_is_refused),
        cmocka_unit_test(png_parts_take_no_more_room_than_they_have),
        cmocka_unit_test(damage_is_survived),
        cmocka_unit_test(want_of_memory_is_survived),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
