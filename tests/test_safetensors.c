/* safetensors: every refusal, every dtype, and files that come back as they were written. */
#include "testing.h"

#include "scratch.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/random.h"
#include "formats/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A file of this header and `data` bytes 0, 1, 2, ...; length < 0: the header's own. */
static unsigned char *make_file(const char *header, size_t header_size, int64_t length, size_t data,
                                size_t *size)
{
    *size = 8 + header_size + data;
    unsigned char *file = ek_calloc(*size, 1);
    assert_non_null(file);
    uint64_t n = length < 0 ? header_size : (uint64_t)length;
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)(n >> 8 * i);
    memcpy(file + 8, header, header_size);
    for (size_t i = 0; i < data; i++) file[8 + header_size + i] = (unsigned char)i;
    return file;
}

static ek_status parse(const char *header, size_t data, ek_safetensors *out)
{
    size_t size;
    unsigned char *file = make_file(header, strlen(header), -1, data, &size);
    return ek_safetensors_parse(file, size, out);
}

static void refuse(ek_status status, const char *words, const char *header, size_t data)
{
    ek_safetensors file;
    assert_fails(status, words, parse(header, data, &file));
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    ek_safetensors file;
    size_t size;
    assert_fails(EK_E_FORMAT, "the file is empty", ek_safetensors_parse(ek_calloc(0, 1), 0, &file));
    assert_fails(EK_E_FORMAT, "the file has 3 bytes", ek_safetensors_parse(ek_calloc(3, 1), 3, &file));
    unsigned char *bytes = make_file("", 0, 40, 0, &size);
    assert_fails(EK_E_FORMAT, "the header should have 40 bytes, but only 0 follow",
                 ek_safetensors_parse(bytes, size, &file));
    bytes = make_file("{}", 2, 100000001, 0, &size);
    assert_fails(EK_E_FORMAT, "more than the 100000000", ek_safetensors_parse(bytes, size, &file));
    bytes = make_file("{}", 2, INT64_MAX, 0, &size);
    assert_fails(EK_E_FORMAT, "more than the 100000000", ek_safetensors_parse(bytes, size, &file));
    bytes = make_file("{\"\xff\":1}", 7, -1, 0, &size);
    assert_fails(EK_E_FORMAT, "not UTF-8", ek_safetensors_parse(bytes, size, &file));
    bytes = make_file("{}\0{}", 5, -1, 0, &size);
    assert_fails(EK_E_FORMAT, "not JSON", ek_safetensors_parse(bytes, size, &file));
    refuse(EK_E_FORMAT, "not JSON", "", 0);
    refuse(EK_E_FORMAT, "not JSON", "{\"a\":", 0);
    refuse(EK_E_FORMAT, "not JSON", "{} x", 0);
    refuse(EK_E_FORMAT, "not a JSON object", "[]", 0);
}

static void refuses_wrong_entries(void **state)
{
    (void)state;
#define T(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"
    refuse(EK_E_FORMAT, "key twice", "{" T("a", "U8", "[1]", "0", "1") "," T("a", "U8", "[1]", "1", "2") "}",
           2);
    refuse(EK_E_FORMAT, "key twice",
           "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    refuse(EK_E_FORMAT, "'a' is not an object", "{\"a\":3}", 0);
    refuse(EK_E_FORMAT, "'a' has no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    refuse(EK_E_FORMAT, "'a' has no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1);
    refuse(EK_E_FORMAT, "'a' has no data_offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1);
    refuse(EK_E_FORMAT, "'a' has no data_offsets",
           "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1);
    refuse(EK_E_UNSUPPORTED, "dtype 'F8_E5M2'", "{" T("a", "F8_E5M2", "[1]", "0", "1") "}", 1);
    refuse(EK_E_FORMAT, "dimension 0 of its shape", "{" T("a", "U8", "[-1]", "0", "1") "}", 1);
    refuse(EK_E_FORMAT, "dimension 1 of its shape", "{" T("a", "U8", "[1,1.0]", "0", "1") "}", 1);
    refuse(EK_E_FORMAT, "9 dimensions", "{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", "0", "1") "}", 1);
    refuse(EK_E_FORMAT, "the product of its shape overflows",
           "{" T("a", "U8", "[4294967296,4294967296]", "0", "1") "}", 1);
    refuse(EK_E_FORMAT, "the bytes of its shape overflow",
           "{" T("a", "F64", "[4611686018427387904]", "0", "8") "}", 8);
    refuse(EK_E_FORMAT, "data_offsets are not whole", "{" T("a", "U8", "[1]", "-1", "0") "}", 1);
    refuse(EK_E_FORMAT, "data_offsets are not whole", "{" T("a", "U8", "[1]", "0", "1.0") "}", 1);
    refuse(EK_E_FORMAT, "ends before it begins", "{" T("a", "U8", "[1]", "1", "0") "}", 1);
    refuse(EK_E_FORMAT, "its shape needs 8 bytes, its data_offsets give 4",
           "{" T("a", "F32", "[2]", "0", "4") "}", 4);
    refuse(EK_E_FORMAT, "'a' and 'b' share bytes",
           "{" T("b", "U8", "[2]", "1", "3") "," T("a", "U8", "[2]", "0", "2") "}", 3);
    refuse(EK_E_FORMAT, "share bytes",
           "{" T("a", "U8", "[2]", "0", "2") "," T("b", "U8", "[2]", "0", "2") "}", 2);
    refuse(EK_E_FORMAT, "begins at byte 1", "{" T("a", "U8", "[1]", "1", "2") "}", 2);
    refuse(EK_E_FORMAT, "2 bytes follow", "{" T("a", "U8", "[1]", "0", "1") "}", 3);
    refuse(EK_E_FORMAT, "1 bytes follow", "{}", 1);
    refuse(EK_E_FORMAT, "cut short", "{" T("a", "U8", "[4]", "0", "4") "}", 3);
    refuse(EK_E_FORMAT, "__metadata__ is not an object", "{\"__metadata__\":[]}", 0);
    refuse(EK_E_FORMAT, "__metadata__ 'k' is not a string", "{\"__metadata__\":{\"k\":1}}", 0);
    /* Names from files reach the terminal without control characters. */
    refuse(EK_E_FORMAT, "'?[2J' is not an object", "{\"\\u001b[2J\":3}", 0);
}

static void refuses_too_many_tensors(void **state)
{
    (void)state;
    enum { MANY = 65537, ENTRY = 64 };
    char *header = calloc(MANY, ENTRY), *end = header;
    assert_non_null(header);
    *end++ = '{';
    for (int i = 0; i < MANY; i++) end += sprintf(end, "%s\"%d\":{}", i ? "," : "", i);
    *end++ = '}';
    refuse(EK_E_FORMAT, "65537 tensors", header, 0);
    free(header);
}

static void reads_leniently_what_is_legal(void **state)
{
    (void)state;
    ek_safetensors file;
    assert_ok(parse("  {\"__metadata__\":{\"format\":\"pt\"}," T("b", "F32", "[]", "1", "5") "," T(
                        "none", "F32", "[0,7]", "5", "5") "," T("a", "U8", "[1]", "0", "1") "}  ",
                    5, &file));
    assert_int_equal(file.count, 3);
    assert_string_equal(file.tensor[0].name, "a");
    assert_string_equal(file.tensor[1].name, "b");
    assert_int_equal(file.tensor[1].rank, 0);
    assert_int_equal(file.tensor[1].count, 1);
    assert_int_equal(ek_safetensors_find(&file, "none")->count, 0);
    assert_null(ek_safetensors_find(&file, "c"));
    assert_string_equal(ek_safetensors_metadata(&file, "format"), "pt");
    assert_null(ek_safetensors_metadata(&file, "other"));
    ek_safetensors_free(&file);
    assert_ok(parse("{}", 0, &file));
    assert_int_equal(file.count, 0);
    ek_safetensors_free(&file);
}

static ek_st_tensor tensor(ek_number dtype, int64_t count, const void *bytes)
{
    return (ek_st_tensor){
        .name = "t", .dtype = dtype, .rank = 1, .dim = {count}, .count = count, .bytes = bytes};
}

static void converts_every_dtype(void **state)
{
    (void)state;
    float f[6];
    int64_t n[4];
    /* 1, -2, the largest half, the smallest, infinity, NaN */
    const uint16_t half[] = {0x3c00, 0xc000, 0x7bff, 0x0001, 0x7c00, 0x7e00};
    ek_st_tensor t = tensor(EK_NUMBER_F16, 6, half);
    assert_ok(ek_st_to_float(&t, f));
    assert_true(f[0] == 1 && f[1] == -2 && f[2] == 65504 && f[3] == 0x1p-24f && isinf(f[4]) && isnan(f[5]));
    const uint16_t brain[] = {0x3f80, 0xc049};
    t = tensor(EK_NUMBER_BF16, 2, brain);
    assert_ok(ek_st_to_float(&t, f));
    assert_true(f[0] == 1 && f[1] == -3.140625f);
    const double reals[] = {0.1, -3, 1e300};
    t = tensor(EK_NUMBER_F64, 2, reals);
    assert_ok(ek_st_to_float(&t, f));
    assert_true(f[0] == 0.1f && f[1] == -3);
    assert_fails(EK_E_FORMAT, "tensor 't': element 0 is 0.1, not a whole number", ek_st_to_int64(&t, n));
    t.count = 3;
    assert_fails(EK_E_FORMAT, "element 2 is 1e+300, too large", ek_st_to_float(&t, f));
    const int64_t large[] = {-5, 1 << 24, (1 << 24) + 1, INT64_MAX};
    t = tensor(EK_NUMBER_I64, 2, large);
    assert_ok(ek_st_to_float(&t, f));
    assert_true(f[0] == -5 && f[1] == 16777216);
    t.count = 3;
    assert_fails(EK_E_FORMAT, "element 2 is 16777217, which a 32-bit float cannot hold",
                 ek_st_to_float(&t, f));
    t = tensor(EK_NUMBER_I64, 1, &large[3]);
    assert_fails(EK_E_FORMAT, "cannot hold", ek_st_to_float(&t, f));
    assert_ok(ek_st_to_int64(&t, n));
    assert_true(n[0] == INT64_MAX);
    const int32_t i32[] = {-70000};
    t = tensor(EK_NUMBER_I32, 1, i32);
    assert_ok(ek_st_to_int64(&t, n));
    assert_int_equal(n[0], -70000);
    const int16_t i16[] = {-300};
    t = tensor(EK_NUMBER_I16, 1, i16);
    assert_ok(ek_st_to_float(&t, f));
    assert_true(f[0] == -300);
    const unsigned char bytes[] = {255, 1, 2};
    t = tensor(EK_NUMBER_I8, 1, bytes);
    assert_ok(ek_st_to_int64(&t, n));
    assert_int_equal(n[0], -1);
    t = tensor(EK_NUMBER_U8, 1, bytes);
    assert_ok(ek_st_to_float(&t, f));
    assert_true(f[0] == 255);
    t = tensor(EK_NUMBER_BOOL, 2, bytes + 1);
    assert_fails(EK_E_FORMAT, "element 1 is a boolean of value 2", ek_st_to_float(&t, f));
}

static void writes_what_it_reads(void **state)
{
    (void)state;
    const float weight[] = {1, 2, 3, 4, 5, NAN};
    const int64_t steps = 1LL << 40;
    const double state_of[] = {0.5};
    ek_st_writer writer = {0};
    assert_ok(ek_st_add(&writer, "w\"\xc3\xa9", EK_NUMBER_F32, 2, (const int64_t[]){2, 3}, weight));
    assert_ok(ek_st_add(&writer, "steps", EK_NUMBER_I64, 0, NULL, &steps));
    assert_ok(ek_st_add(&writer, "none", EK_NUMBER_F32, 1, (const int64_t[]){0}, NULL));
    assert_ok(ek_st_add(&writer, "state", EK_NUMBER_F64, 1, (const int64_t[]){1}, state_of));
    assert_ok(ek_st_add_metadata(&writer, "net", "first"));
    assert_ok(ek_st_add_metadata(&writer, "net", "input 1x28x28\nrelu"));
    assert_fails(EK_E_ARGUMENT, "two tensors are called 'steps'",
                 ek_st_add(&writer, "steps", EK_NUMBER_I64, 0, NULL, &steps));
    assert_fails(EK_E_ARGUMENT, "__metadata__",
                 ek_st_add(&writer, "__metadata__", EK_NUMBER_I64, 0, NULL, &steps));
    assert_fails(EK_E_UNSUPPORTED, "only F32, F64 and I64",
                 ek_st_add(&writer, "h", EK_NUMBER_F16, 0, NULL, &steps));
    assert_fails(EK_E_ARGUMENT, "9 dimensions", ek_st_add(&writer, "h", EK_NUMBER_F32, 9, NULL, &steps));
    assert_ok(ek_st_write(&writer, path));

    unsigned char *once, *twice;
    size_t size, again;
    assert_ok(ek_file_read(path, 4096, &once, &size));
    assert_ok(ek_st_write(&writer, path));
    assert_ok(ek_file_read(path, 4096, &twice, &again));
    assert_int_equal(size, again);
    assert_memory_equal(once, twice, size);
    assert_int_equal(once[0] % 8, 0); /* the data is aligned */
    assert_int_equal(once[8], '{');
    ek_free(once);
    ek_free(twice);
    ek_st_writer_free(&writer);

    ek_safetensors file;
    assert_ok(ek_safetensors_read(path, &file));
    assert_int_equal(file.count, 4);
    assert_string_equal(ek_safetensors_metadata(&file, "net"), "input 1x28x28\nrelu");
    assert_int_equal(file.metadata_count, 1);
    const ek_st_tensor *t = ek_safetensors_find(&file, "w\"\xc3\xa9");
    assert_true(t->dtype == EK_NUMBER_F32 && t->rank == 2 && t->dim[0] == 2 && t->dim[1] == 3);
    float back[6];
    assert_ok(ek_st_to_float(t, back));
    assert_memory_equal(back, weight, sizeof weight);
    int64_t n;
    assert_ok(ek_st_to_int64(ek_safetensors_find(&file, "steps"), &n));
    assert_true(n == steps);
    ek_safetensors_free(&file);
}

static void refuses_names_that_json_cannot_hold(void **state)
{
    (void)state;
    ek_st_writer writer = {0};
    assert_ok(ek_st_add(&writer, "\xff", EK_NUMBER_F32, 1, (const int64_t[]){0}, NULL));
    assert_fails(EK_E_ARGUMENT, "not UTF-8", ek_st_write(&writer, path));
    ek_st_writer_free(&writer);
    assert_ok(ek_st_add_metadata(&writer, "k", "\xff"));
    assert_fails(EK_E_ARGUMENT, "metadata 'k' is not UTF-8", ek_st_write(&writer, path));
    ek_st_writer_free(&writer);
}

static void more_than_is_read_is_not_written(void **state)
{
    (void)state;
    ek_st_writer writer = {0};
    char key[16];
    for (int i = 0; i <= 4096; i++) {
        snprintf(key, sizeof key, "%d", i);
        assert_ok(ek_st_add_metadata(&writer, key, ""));
        if (i == 4095) assert_ok(ek_st_write(&writer, path));
    }
    assert_fails(EK_E_ARGUMENT, "4097 entries of metadata are more than can be read",
                 ek_st_write(&writer, path));
    ek_st_writer_free(&writer);
    ek_safetensors file;
    assert_ok(ek_safetensors_read(path, &file));
    assert_int_equal(file.metadata_count, 4096);
    ek_safetensors_free(&file);
}

static void names_the_file(void **state)
{
    (void)state;
    ek_safetensors file;
    assert_fails(EK_E_NOT_FOUND, "cannot open /no/such", ek_safetensors_read("/no/such", &file));
    assert_int_equal(truncate(path, 0), 0);
    assert_fails(EK_E_FORMAT, path, ek_safetensors_read(path, &file));
    ek_st_writer writer = {0};
    assert_fails(EK_E_NOT_FOUND, "/no/such/folder", ek_st_write(&writer, "/no/such/folder/m.safetensors"));
}

/* Whatever bytes change, the answer is a file or an error, and no tensor reaches past the memory. */
static void survives_damage(void **state)
{
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"}," T(
        "b", "F32", "[2,2]", "1", "17") "," T("a", "U8", "[1]", "0", "1") "}";
    ek_random random = ek_random_start(1, EK_STREAM_TEST, 0);
    for (int round = 0; round < 20000; round++) {
        size_t size, cut;
        unsigned char *bytes = make_file(header, sizeof header - 1, -1, 17, &size);
        for (uint64_t n = ek_random_below(&random, 4) + 1; n; n--)
            bytes[8 + ek_random_below(&random, size - 8)] =
                "0123456789[]{},:\"-.eUF\\ax\xc3"[ek_random_below(&random, 27)];
        if (ek_random_below(&random, 4) == 0)
            bytes[ek_random_below(&random, 8)] ^= (unsigned char)ek_random_u32(&random);
        cut = ek_random_below(&random, 4) ? size : ek_random_below(&random, size);
        ek_safetensors file;
        if (ek_safetensors_parse(bytes, cut, &file) != EK_OK) continue;
        for (int i = 0; i < file.count; i++) {
            int64_t *values = ek_calloc((size_t)file.tensor[i].count, sizeof *values);
            if (ek_st_to_int64(&file.tensor[i], values) != EK_OK) assert_true(*ek_error());
            ek_free(values);
        }
        ek_safetensors_free(&file);
    }
}

/* Every allocation of ours fails in turn; nothing is lost. */
static void survives_want_of_memory(void **state)
{
    (void)state;
    for (failing f = {0}; fail_next(&f);) {
        ek_st_writer writer = {0};
        f.status = ek_st_add(&writer, "a", EK_NUMBER_F32, 1, (const int64_t[]){1}, &(const float){1});
        if (f.status == EK_OK) f.status = ek_st_add_metadata(&writer, "k", "v");
        if (f.status == EK_OK) f.status = ek_st_write(&writer, path);
        ek_st_writer_free(&writer);
    }
    for (failing f = {0}; fail_next(&f);) { /* what was written */
        ek_safetensors file;
        f.status = ek_safetensors_read(path, &file);
        if (f.status == EK_OK) ek_safetensors_free(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_no_file),
        cmocka_unit_test(refuses_wrong_entries),
        cmocka_unit_test(refuses_too_many_tensors),
        cmocka_unit_test(reads_leniently_what_is_legal),
        cmocka_unit_test(converts_every_dtype),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(refuses_names_that_json_cannot_hold),
        cmocka_unit_test(more_than_is_read_is_not_written),
        cmocka_unit_test(names_the_file),
        cmocka_unit_test(survives_damage),
        cmocka_unit_test(survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
