/* Failing with a sentence. Nothing in src/ prints or ends the process. */
#ifndef EK_CORE_STATUS_H
#define EK_CORE_STATUS_H

#include "evenkeel.h"

/* Records the sentence for ek_error() on this thread and returns `status`. */
__attribute__((format(printf, 2, 3))) ek_status ek_fail(ek_status status, const char *format, ...);

/* The same for errno: "cannot open model.safetensors: No such file or directory". */
__attribute__((format(printf, 1, 2))) ek_status ek_fail_errno(const char *format, ...);

/* Puts words in front of the sentence in place, for a caller that knows where: "train.csv: ...".
 * Returns `status`, so that it can close a function. */
__attribute__((format(printf, 2, 3))) ek_status ek_fail_in(ek_status status, const char *format, ...);

#define EK_TRY(expression)                                                                          \
    do {                                                                                            \
        ek_status ek_try_status_ = (expression);                                                    \
        if (ek_try_status_ != EK_OK) return ek_try_status_;                                         \
    } while (0)

/* For functions with something to free: sets `status` and goes to `done`. */
#define EK_GO(expression)                                                                           \
    do {                                                                                            \
        status = (expression);                                                                      \
        if (status != EK_OK) goto done;                                                             \
    } while (0)

#endif
