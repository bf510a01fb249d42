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

#endif
