/* Reading protocol buffers where they lie: what is written reads back, and what is damaged is refused. */
#include "testing.h"

#include "core/protobuf_read.h"
#include "core/protobuf_write.h"

static ek_wire_field next(ek_wire *message)
{
    ek_wire_field field;
    bool more;
    assert_ok(ek_wire_next(message, &field, &more));
    assert_true(more);
    return field;
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    ek_protobuf m = {0};
    ek_protobuf_int(&m, 1, -2);
    ek_protobuf_float(&m, 2, 0.25f);
    size_t start = ek_protobuf_begin(&m, 3);
    ek_protobuf_text(&m, 1, "inner");
    ek_protobuf_end(&m, start);
    ek_protobuf_doubles(&m, 4, (double[]){1, 2, 3}, 3);
    ek_protobuf_double(&m, 4, 4);
    assert_ok(ek_protobuf_status(&m));

    ek_wire message = ek_wire_begin(m.data, m.length), inner;
    ek_wire_field field = next(&message);
    int64_t number;
    float real;
    const unsigned char *data;
    size_t size, count;
    bool more;
    assert_ok(ek_wire_int(&field, &number));
    assert_true(field.number == 1 && number == -2);
    field = next(&message);
    assert_ok(ek_wire_float(&field, &real));
    assert_true(real == 0.25f);
    assert_fails(EK_E_FORMAT, "not a message", ek_wire_enter(&message, &field, &inner));
    assert_fails(EK_E_FORMAT, "not a whole number", ek_wire_int(&field, &number));
    field = next(&message);
    assert_ok(ek_wire_enter(&message, &field, &inner));
    ek_wire_field text = next(&inner);
    assert_ok(ek_wire_bytes(&text, &data, &size));
    assert_true(size == 5 && !memcmp(data, "inner", 5));
    assert_true(data > m.data && data < m.data + m.length); /* where it lies */
    field = next(&message);
    assert_ok(ek_wire_fixed(&field, 8, &data, &count));
    assert_int_equal(count, 3);
    field = next(&message);
    assert_ok(ek_wire_fixed(&field, 8, &data, &count)); /* one alone, not packed */
    assert_int_equal(count, 1);
    assert_fails(EK_E_FORMAT, "not floats", ek_wire_fixed(&field, 4, &data, &count));
    assert_ok(ek_wire_next(&message, &field, &more));
    assert_false(more);
    ek_protobuf_free(&m);
}

static void packed_and_single_numbers(void **state)
{
    (void)state;
    static const unsigned char packed[] = {0x0a, 5, 1, 0x80, 1, 0xff, 0x01}, single[] = {0x08, 0x96, 0x01};
    ek_wire message = ek_wire_begin(packed, sizeof packed);
    ek_wire_field field = next(&message);
    int64_t value[3];
    size_t count;
    assert_ok(ek_wire_count_ints(&field, &count));
    assert_int_equal(count, 3);
    assert_ok(ek_wire_take_ints(&field, value));
    assert_true(value[0] == 1 && value[1] == 128 && value[2] == 255);
    message = ek_wire_begin(single, sizeof single);
    field = next(&message);
    assert_ok(ek_wire_count_ints(&field, &count));
    assert_ok(ek_wire_take_ints(&field, value));
    assert_true(count == 1 && value[0] == 150);
}

#define REFUSED(words, ...)                                                      \
    do {                                                                         \
        static const unsigned char bytes[] = {__VA_ARGS__};                      \
        ek_wire message = ek_wire_begin(bytes, sizeof bytes);                    \
        ek_wire_field field;                                                     \
        bool more;                                                               \
        assert_fails(EK_E_FORMAT, words, ek_wire_next(&message, &field, &more)); \
    } while (0)

static void what_is_damaged_is_refused(void **state)
{
    (void)state;
    REFUSED("ends in the middle", 0x0a, 5, 1);                /* a length beyond the end */
    REFUSED("ends in the middle", 0x08, 0x80);                /* half a varint */
    REFUSED("ends in the middle", 0x0d, 1, 2, 3);             /* half a float */
    REFUSED("ends in the middle", 0x09, 1, 2, 3, 4, 5, 6, 7); /* half a double */
    REFUSED("ends in the middle", 0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            1); /* a length of 2^64 - 1 */
    REFUSED("more than ten bytes", 0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1);
    REFUSED("is not read", 0x0b); /* a group */
    REFUSED("is not read", 0x0f); /* type 7 */
    REFUSED("no field", 0x00, 1);
    REFUSED("no field", 0x88, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 1);
    static const unsigned char half[] = {0x0a, 2, 1, 0x80};
    ek_wire message = ek_wire_begin(half, sizeof half);
    ek_wire_field field = next(&message);
    size_t count;
    const unsigned char *data;
    assert_fails(EK_E_FORMAT, "ends in the middle", ek_wire_count_ints(&field, &count));
    static const unsigned char odd[] = {0x0a, 3, 1, 2, 3};
    message = ek_wire_begin(odd, sizeof odd);
    field = next(&message);
    assert_fails(EK_E_FORMAT, "ends in the middle", ek_wire_fixed(&field, 4, &data, &count));
}

static void messages_nest_so_deep_alone(void **state)
{
    (void)state;
    unsigned char bytes[400];
    size_t length = 0;
    ek_protobuf m = {0};
    for (int i = 0; i < 80; i++) { /* from within */
        ek_protobuf_clear(&m);
        ek_protobuf_bytes(&m, 1, bytes, length);
        memcpy(bytes, m.data, length = m.length);
    }
    ek_wire message = ek_wire_begin(bytes, length);
    ek_status status = EK_OK;
    int depth = 0;
    while (status == EK_OK && depth < 80) {
        ek_wire_field field = next(&message);
        status = ek_wire_enter(&message, &field, &message);
        depth += status == EK_OK;
    }
    assert_int_equal(depth, 64);
    assert_non_null(strstr(ek_error(), "within each other"));
    ek_protobuf_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(packed_and_single_numbers),
        cmocka_unit_test(what_is_damaged_is_refused),
        cmocka_unit_test(messages_nest_so_deep_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
