/* Protocol buffers and event files, against bytes from their specifications. tests/commands/tensorboard.py reads whole
 * files. */
#include "testing.h"

#include "core/protobuf_write.h"
#include "formats/tfevents.h"

#include <stdlib.h>
#include <unistd.h>

static void check_bytes(ek_protobuf *message, const char *expected, size_t size)
{
    assert_ok(ek_protobuf_status(message));
    assert_int_equal(message->length, size);
    assert_memory_equal(message->data, expected, size);
    ek_protobuf_clear(message);
}
#define CHECK_BYTES(message, text) check_bytes(message, text, sizeof(text) - 1)

/* The examples of protobuf.dev/programming-guides/encoding, and what they leave out. */
static void wire_format(void **state)
{
    (void)state;
    ek_protobuf m = {0};
    ek_protobuf_int(&m, 1, 150);
    CHECK_BYTES(&m, "\x08\x96\x01");
    ek_protobuf_text(&m, 2, "testing");
    CHECK_BYTES(&m, "\x12\x07testing");
    size_t start = ek_protobuf_begin(&m, 3);
    ek_protobuf_int(&m, 1, 150);
    ek_protobuf_end(&m, start);
    CHECK_BYTES(&m, "\x1a\x03\x08\x96\x01");
    ek_protobuf_int(&m, 1, -2);
    CHECK_BYTES(&m, "\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    ek_protobuf_int(&m, 1, 0);
    CHECK_BYTES(&m, "\x08\x00");
    ek_protobuf_int(&m, 2047, 127);
    CHECK_BYTES(&m, "\xf8\x7f\x7f");
    ek_protobuf_float(&m, 1, 1.5f);
    CHECK_BYTES(&m, "\x0d\x00\x00\xc0\x3f");
    ek_protobuf_double(&m, 1, -1.5);
    CHECK_BYTES(&m, "\x09\x00\x00\x00\x00\x00\x00\xf8\xbf");
    ek_protobuf_doubles(&m, 6, (const double[]){1, -1.5}, 2);
    CHECK_BYTES(&m, "\x32\x10\x00\x00\x00\x00\x00\x00\xf0\x3f\x00\x00\x00\x00\x00\x00\xf8\xbf");
    ek_protobuf_bytes(&m, 1, "", 0);
    CHECK_BYTES(&m, "\x0a\x00");
    ek_protobuf_free(&m);
}

/* Messages within messages, whose lengths take one byte and two. */
static void nested(void **state)
{
    (void)state;
    enum { INNER = 200 };
    unsigned char data[INNER];
    ek_protobuf m = {0};
    memset(data, 'x', sizeof data);
    size_t outer = ek_protobuf_begin(&m, 1), inner = ek_protobuf_begin(&m, 2);
    ek_protobuf_bytes(&m, 3, data, sizeof data);
    ek_protobuf_end(&m, inner);
    size_t empty = ek_protobuf_begin(&m, 4);
    ek_protobuf_end(&m, empty);
    ek_protobuf_end(&m, outer);
    assert_ok(ek_protobuf_status(&m));
    assert_int_equal(m.length, 3 + 3 + 3 + INNER + 2);
    assert_memory_equal(m.data, "\x0a\xd0\x01\x12\xcb\x01\x1a\xc8\x01xx", 11);
    assert_memory_equal(m.data + m.length - 3, "x\x22\x00", 3);
    ek_protobuf_free(&m);
}

/* RFC 3720, B.4, and the check value of the CRC catalogues; the mask is TensorFlow's. */
static void checksums(void **state)
{
    (void)state;
    unsigned char zeros[32] = {0};
    uint32_t crc = 0xe3069283u;
    assert_int_equal(ek_crc32c_masked("123456789", 9), (crc >> 15 | crc << 17) + 0xa282ead8u);
    crc = 0x8a9136aau;
    assert_int_equal(ek_crc32c_masked(zeros, 32), (crc >> 15 | crc << 17) + 0xa282ead8u);
}

static void histograms(void **state)
{
    (void)state;
    const float value[] = {-1, 0, 0, 0.5f, 3}, same[] = {2, 2, 2};
    ek_histogram h;
    ek_histogram_fill(&h, value, 5);
    assert_true(h.min == -1 && h.max == 3 && h.count == 5 && h.sum == 2.5 && h.squares == 10.25);
    double sum = 0;
    for (int i = 0; i < EK_HISTOGRAM_BUCKETS; i++) sum += h.bucket[i];
    assert_true(sum == 5);
    assert_true(h.bucket[0] == 1 && h.bucket[EK_HISTOGRAM_BUCKETS - 1] == 1);
    assert_true(h.limit[EK_HISTOGRAM_BUCKETS - 1] == 3);
    ek_histogram_fill(&h, same, 3);
    assert_true(h.bucket[EK_HISTOGRAM_BUCKETS / 2 - 1] + h.bucket[EK_HISTOGRAM_BUCKETS / 2] == 3);
    ek_histogram_fill(&h, same, 0);
    assert_true(h.count == 0);
}

static void want_of_memory(void **state)
{
    (void)state;
    char folder[] = "/tmp/evenkeel-events-XXXXXX";
    assert_non_null(mkdtemp(folder));
    ek_histogram h;
    ek_histogram_fill(&h, (const float[]){1, 2}, 2);
    for (failing f = {0}; fail_next(&f);) {
        ek_tfevents *events = NULL;
        f.status = ek_tfevents_create(folder, &events);
        if (f.status != EK_OK) continue;
        ek_tfevents_histogram(events, 1, "gamma", &h);
        ek_tfevents_scalar(events, 1, "loss", 1);
        f.status = ek_tfevents_close(events, true);
    }
    assert_int_equal(rmdir(folder), 0); /* nothing was left behind */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wire_format), cmocka_unit_test(nested),         cmocka_unit_test(checksums),
        cmocka_unit_test(histograms),  cmocka_unit_test(want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
