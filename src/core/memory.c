#include "core/memory.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* In front of every block, one alignment unit long so that the block stays aligned. */
typedef struct header {
    size_t size;
    char pad[EK_ALIGN - sizeof(size_t)];
} header;

static atomic_uint_fast64_t allocations, fail_at;
static atomic_size_t live_bytes, peak_bytes, most_bytes;

/* Where the compiler has this header its macros tell the address sanitizer, and do nothing without it. */
#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

/* What lies around a block's own bytes, and is there for its alignment, is out of bounds too. */
static void mark_borders(header *block, size_t room)
{
    char *start = (char *)(block + 1), *end = start + block->size;
    ASAN_POISON_MEMORY_REGION(block->pad, sizeof block->pad);
    ASAN_POISON_MEMORY_REGION(end, (size_t)((char *)block + room - end));
}

/* Whether the block and all that there is fit the machine. The system promises more than it has, and ends
 * the process that takes the promise at its word. */
static bool fits(size_t bytes)
{
    enum { SMALL = 1 << 20 }; /* not worth asking */
    if (bytes <= SMALL) return true;
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t live = atomic_load(&live_bytes), all = SIZE_MAX / 2;
    if (pages > 0 && page > 0) all = (size_t)pages * (size_t)page;
    return live < all && bytes <= all - live;
}

/* Large blocks ask for large pages: kernels walk over many channels at once, more small pages than the processor
 * keeps the addresses of. */
static void ask_for_large_pages(char *block, size_t room)
{
#ifdef MADV_HUGEPAGE
    enum { LARGE = 1 << 22 };
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), skip = (page - (uintptr_t)block % page) % page;
    if (room >= LARGE) (void)madvise(block + skip, room - skip, MADV_HUGEPAGE); /* a wish: refused, nothing is lost */
#else
    (void)block, (void)room;
#endif
}

void *ek_calloc(size_t count, size_t size)
{
    size_t bytes;
    size_t most = atomic_load(&most_bytes);
    if (ek_multiply_overflows(count, size, &bytes) || !fits(bytes) || (most && bytes + atomic_load(&live_bytes) > most)) {
        ek_fail(EK_E_MEMORY, "%zu items of %zu bytes are more than memory can hold", count, size);
        return NULL;
    }
    uint_fast64_t number = atomic_fetch_add(&allocations, 1) + 1;
    uint_fast64_t limit = atomic_load(&fail_at);
    /* aligned_alloc wants a multiple of the alignment. */
    size_t room = (bytes + sizeof(header) + EK_ALIGN - 1) / EK_ALIGN * EK_ALIGN;
    header *block = limit && number >= limit ? NULL : aligned_alloc(EK_ALIGN, room);
    if (!block) {
        ek_fail(EK_E_MEMORY, "out of memory: %zu bytes were asked for", bytes);
        return NULL;
    }
    ask_for_large_pages((char *)block, room);
    memset(block, 0, room);
    block->size = bytes;
    mark_borders(block, room);
    size_t live = atomic_fetch_add(&live_bytes, bytes) + bytes;
    size_t peak = atomic_load(&peak_bytes);
    while (live > peak && !atomic_compare_exchange_weak(&peak_bytes, &peak, live)) {
    }
    return block + 1;
}

void ek_free(void *memory)
{
    if (!memory) return;
    header *block = (header *)memory - 1;
    atomic_fetch_sub(&live_bytes, block->size);
    ASAN_UNPOISON_MEMORY_REGION(block->pad, sizeof block->pad);
    free(block);
}

void *ek_grow(void *memory, size_t count, size_t size)
{
    void *grown = ek_calloc(count, size);
    if (grown && memory) {
        size_t old = ((header *)memory - 1)->size, now = ((header *)grown - 1)->size;
        memcpy(grown, memory, old < now ? old : now);
        ek_free(memory);
    }
    return grown;
}

char *ek_strndup(const char *text, size_t length)
{
    char *copy = ek_calloc(length + 1, 1);
    if (copy) memcpy(copy, text, length);
    return copy;
}

char *ek_strdup(const char *text) { return ek_strndup(text, strlen(text)); }

char *ek_vstrf(const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    char *text = length < 0 ? NULL : ek_calloc((size_t)length + 1, 1);
    if (text) vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

char *ek_strf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *text = ek_vstrf(format, args);
    va_end(args);
    return text;
}

ek_memory_counts ek_memory_count(void)
{
    return (ek_memory_counts){.allocations = atomic_load(&allocations),
                              .live_bytes = atomic_load(&live_bytes),
                              .peak_bytes = atomic_load(&peak_bytes)};
}

void ek_memory_fail_after(uint64_t calls)
{
    atomic_store(&fail_at, calls ? atomic_load(&allocations) + calls : 0);
}

void ek_memory_fail_beyond(size_t bytes) { atomic_store(&most_bytes, bytes); }
