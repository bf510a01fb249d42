#include "core/memory.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* In front of every block, one alignment unit long so that the block stays aligned. */
typedef struct header {
    size_t size;
    char pad[EK_ALIGN - sizeof(size_t)];
} header;

static atomic_uint_fast64_t allocations, fail_at;
static atomic_bool fail_alone;
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

static size_t physical(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (size_t)pages * (size_t)page : SIZE_MAX / 2;
}

/* The number that a file of the system holds; `otherwise` where there is none. */
static size_t number_in(const char *path, size_t otherwise)
{
    unsigned long long value = 0;
    FILE *file = fopen(path, "re");
    if (!file) return otherwise;
    bool read = fscanf(file, "%llu", &value) == 1;
    fclose(file);
    return read && value > 0 && value < otherwise ? (size_t)value : otherwise;
}

/* The smallest limit of the control groups that this process is in: of its own and of each above it. Version 2 is described
 * at https://docs.kernel.org/admin-guide/cgroup-v2.html; version 1 names the controller. */
static size_t control_group_limit(size_t limit)
{
    static const struct {
        const char *line, *folder, *file;
    } kinds[] = {{"::/", "", "memory.max"}, {":memory:/", "/memory", "memory.limit_in_bytes"}};
    char line[512], path[600];
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && fgets(line, sizeof line, file)) {
        int kind = strstr(line, kinds[1].line) ? 1 : 0;
        char *own = strstr(line, kinds[kind].line), *end;
        if (!own) continue;
        own = strchr(own, '/');
        own[strcspn(own, "\n")] = 0;
        do {
            snprintf(path, sizeof path, "/sys/fs/cgroup%s%s/%s", kinds[kind].folder, own, kinds[kind].file);
            limit = number_in(path, limit);
            end = strrchr(own, '/');
            if (end) *end = 0;
        } while (end);
    }
    if (file) fclose(file);
    return limit;
}

size_t ek_memory_limit(void)
{
    size_t limit = physical();
    static const int kind[] = {RLIMIT_AS, RLIMIT_DATA};
    for (int i = 0; i < 2; i++) {
        struct rlimit own;
        if (getrlimit(kind[i], &own) == 0 && own.rlim_cur != RLIM_INFINITY && own.rlim_cur < limit)
            limit = (size_t)own.rlim_cur;
    }
    return control_group_limit(limit);
}

/* Whether the block and all that there is fit the machine. The system promises more than it has, and ends
 * the process that takes the promise at its word. */
static bool fits(size_t bytes)
{
    enum { SMALL = 1 << 20 }; /* not worth asking */
    if (bytes <= SMALL) return true;
    size_t live = atomic_load(&live_bytes), all = physical();
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
    bool fails = limit && (atomic_load(&fail_alone) ? number == limit : number >= limit);
    header *block = fails ? NULL : aligned_alloc(EK_ALIGN, room);
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

static void fail_in(uint64_t calls, bool alone)
{
    atomic_store(&fail_alone, alone);
    atomic_store(&fail_at, calls ? atomic_load(&allocations) + calls : 0);
}

void ek_memory_fail_after(uint64_t calls) { fail_in(calls, false); }
void ek_memory_fail_one(uint64_t calls) { fail_in(calls, true); }
void ek_memory_fail_beyond(size_t bytes) { atomic_store(&most_bytes, bytes); }
