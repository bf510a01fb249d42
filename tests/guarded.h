/* Memory that ends where the next page cannot be touched: reading or writing past the end ends the test. */
#ifndef EK_TESTS_GUARDED_H
#define EK_TESTS_GUARDED_H

#include <sys/mman.h>
#include <unistd.h>

typedef struct guarded_map {
    void *start;
    size_t bytes;
} guarded_map;

enum { GUARDED_MAPS = 64 };
static guarded_map guarded_maps[GUARDED_MAPS];
static int guarded_count;

/* `bytes` zeroed bytes; aligned to 64 where their number is a multiple of it. Freed by guarded_free(). */
static void *guarded(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    char *start = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(start, MAP_FAILED);
    assert_int_equal(mprotect(start + room, page, PROT_NONE), 0);
    assert_in_range(guarded_count, 0, GUARDED_MAPS - 1);
    guarded_maps[guarded_count++] = (guarded_map){start, room + page};
    return start + room - bytes;
}

static void guarded_free(void)
{
    while (guarded_count > 0) {
        guarded_count--;
        munmap(guarded_maps[guarded_count].start, guarded_maps[guarded_count].bytes);
    }
}

#endif
