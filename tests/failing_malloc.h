/* Want of memory on demand: the n-th allocation from now fails, alone or with all after it. Included by one source of a
 * program, or of a library that is preloaded, whose malloc then takes the place of the C library's for all others too:
 * the allocations of the C library, jansson, zlib and libpng are among them. Under sanitizers, whose malloc that is, the
 * library's own allocator fails instead. */
#ifndef EK_TESTS_FAILING_MALLOC_H
#define EK_TESTS_FAILING_MALLOC_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static struct failing_malloc {
    atomic_bool on;
    atomic_uint_fast64_t calls, at; /* since on; the one that fails, 0: none */
    bool alone;                     /* those after it do not */
    atomic_int_fast64_t live;       /* blocks that were taken and not given back, always counted */
    void (*seen)(void);             /* NULL; called at each allocation while on */
} failing_malloc;

#if !defined(SANITIZED) && defined(__GLIBC__)
#define FAILS_MALLOC 1
#include <string.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

static bool fails_now(void)
{
    static _Thread_local bool inside __attribute__((tls_model("initial-exec")));
    if (!atomic_load(&failing_malloc.on) || inside) return false;
    inside = true;
    if (failing_malloc.seen) failing_malloc.seen();
    inside = false;
    uint_fast64_t call = atomic_fetch_add(&failing_malloc.calls, 1) + 1, at = atomic_load(&failing_malloc.at);
    bool fails = at && (failing_malloc.alone ? call == at : call >= at);
    if (fails) errno = ENOMEM;
    return fails;
}

static void *taken(void *memory)
{
    if (memory) atomic_fetch_add(&failing_malloc.live, 1);
    return memory;
}

#pragma GCC visibility push(default)
void *malloc(size_t size) { return fails_now() ? NULL : taken(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return fails_now() ? NULL : taken(__libc_calloc(count, size)); }
void *realloc(void *memory, size_t size)
{
    if (fails_now()) return NULL;
    void *grown = __libc_realloc(memory, size);
    return memory ? grown : taken(grown);
}
void *aligned_alloc(size_t alignment, size_t size) { return fails_now() ? NULL : taken(__libc_memalign(alignment, size)); }
int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *memory = fails_now() ? NULL : taken(__libc_memalign(alignment, size));
    if (memory) *out = memory;
    return memory ? 0 : ENOMEM;
}
void free(void *memory)
{
    if (memory) atomic_fetch_sub(&failing_malloc.live, 1);
    __libc_free(memory);
}
#pragma GCC visibility pop
#endif

#endif
