/* All memory of the library: the only place that calls malloc. */
#ifndef EK_CORE_MEMORY_H
#define EK_CORE_MEMORY_H

#include "core/status.h"

#include <stdarg.h>

#define EK_ALIGN 64

/* count * size zeroed bytes, aligned to EK_ALIGN; NULL (with the error recorded) when the product
 * overflows or memory is out. count 0 gives a valid pointer. */
void *ek_calloc(size_t count, size_t size);
void ek_free(void *memory);

/* A grown copy; the old block is freed on success and kept on failure. New bytes are zero. */
void *ek_grow(void *memory, size_t count, size_t size);

char *ek_strdup(const char *text);
char *ek_strndup(const char *text, size_t length);
__attribute__((format(printf, 1, 2))) char *ek_strf(const char *format, ...);
__attribute__((format(printf, 1, 0))) char *ek_vstrf(const char *format, va_list args);

/* *pointer = zeroed room for `count` elements. */
#define EK_NEW(pointer, count) (((pointer) = ek_calloc((count), sizeof *(pointer))) ? EK_OK : EK_E_MEMORY)

/* True, with *out unchanged, when a*b does not fit. */
static inline bool ek_multiply_overflows(size_t a, size_t b, size_t *out)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) return true;
    *out = product;
    return false;
}

/* The memory that this process may have: what the machine has, or less where a limit of the process (ulimit -v) or of its
 * control group says so. */
size_t ek_memory_limit(void);

/* Counters over the process, for tests and reports. */
typedef struct ek_memory_counts {
    uint64_t allocations;
    size_t live_bytes, peak_bytes;
} ek_memory_counts;
ek_memory_counts ek_memory_count(void);

/* The allocation this many calls from now fails, and all after it (0: none fails). For tests. */
void ek_memory_fail_after(uint64_t calls);
void ek_memory_fail_one(uint64_t calls); /* that one alone */

/* From now on an allocation fails that would make live_bytes more than this (0: there is no such limit). For tests. */
void ek_memory_fail_beyond(size_t bytes);

#endif
