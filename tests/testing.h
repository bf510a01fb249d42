/* What every cmocka test includes, and a few helpers. */
#ifndef EK_TESTS_TESTING_H
#define EK_TESTS_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "evenkeel.h"

#include "core/memory.h"

/* Fails with the library's own sentence. */
#define assert_ok(expression)                                                                   \
    do {                                                                                        \
        ek_status assert_ok_status_ = (expression);                                             \
        if (assert_ok_status_ != EK_OK)                                                         \
            fail_msg("%s: %s: %s", #expression, ek_status_name(assert_ok_status_), ek_error()); \
    } while (0)

/* Fails unless the call fails with `expected` and a sentence that contains `words`. */
#define assert_fails(expected, words, expression)                                                            \
    do {                                                                                                     \
        ek_status assert_fails_status_ = (expression);                                                       \
        if (assert_fails_status_ != (expected))                                                              \
            fail_msg("%s gave %s, not %s: %s", #expression, ek_status_name(assert_fails_status_), #expected, \
                     ek_error());                                                                            \
        if (!strstr(ek_error(), (words)))                                                                    \
            fail_msg("%s: \"%s\" does not say \"%s\"", #expression, ek_error(), (words));                    \
    } while (0)

/* Want of memory at every place: a first round fails at its first allocation, the next at its second, and so on,
 * until one succeeds. Each failure must be EK_E_MEMORY, and each round must give its memory back.
 *
 *   for (failing f = {0}; fail_next(&f);) {
 *       f.status = ...;
 *   } */
typedef struct failing {
    ek_status status; /* of the round */
    uint64_t round;
    size_t live; /* bytes before all rounds */
} failing;

static inline bool fail_next(failing *f)
{
    ek_memory_fail_after(0);
    size_t live = ek_memory_count().live_bytes;
    if (f->round == 0) f->live = live;
    assert_int_equal(live, f->live);
    if (f->round > 0 && f->status != EK_E_MEMORY) {
        assert_ok(f->status);
        return false;
    }
    ek_memory_fail_after(++f->round);
    return true;
}

#endif
