#include "core/file_parts.h"

#include "core/memory.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { AT_ONCE = 64, LANDING = AT_ONCE * EK_PART_BYTES, MOST_LANDINGS = 32 };

/* A file in memory that parts are copied into, and where it lies. */
typedef struct landing {
    int descriptor;
    unsigned char *bytes;
} landing;

struct ek_file_parts {
    int descriptor;
    unsigned char *file; /* mapped, and how much of it */
    size_t size;
    pthread_mutex_t lock;
    landing free[MOST_LANDINGS]; /* those that no thread uses: each thread takes the last one, or a new one */
    int count;
};

/* The system ends a process whose file, be it one in memory, grows beyond its limit. */
static bool may_be_written(size_t bytes)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
           (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= bytes);
}

static void close_landing(landing *l)
{
    munmap(l->bytes, LANDING);
    close(l->descriptor);
}

static bool open_landing(landing *l)
{
#ifdef MFD_CLOEXEC
    if (!may_be_written(LANDING)) return false;
    l->descriptor = memfd_create("evenkeel-parts", MFD_CLOEXEC);
    if (l->descriptor < 0) return false;
    l->bytes = ftruncate(l->descriptor, LANDING) != 0
                   ? MAP_FAILED
                   : mmap(NULL, LANDING, PROT_READ, MAP_SHARED, l->descriptor, 0);
    if (l->bytes != MAP_FAILED) return true;
    close(l->descriptor);
#endif
    (void)l;
    return false;
}

ek_status ek_file_parts_open(int descriptor, int64_t size, ek_file_parts **out)
{
    landing first;
    *out = NULL;
    if (size < 1 || (uint64_t)size > ek_memory_limit() || !open_landing(&first)) return EK_OK;
    unsigned char *file = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, descriptor, 0);
    ek_file_parts *p = NULL;
    ek_status status = file == MAP_FAILED ? EK_OK : EK_NEW(p, 1);
    if (!p) {
        if (file != MAP_FAILED) munmap(file, (size_t)size);
        close_landing(&first);
        return status;
    }
    p->descriptor = descriptor;
    p->file = file;
    p->size = (size_t)size;
    p->free[p->count++] = first;
    pthread_mutex_init(&p->lock, NULL);
    *out = p;
    return EK_OK;
}

static bool take_landing(ek_file_parts *p, landing *out)
{
    pthread_mutex_lock(&p->lock);
    bool there = p->count > 0;
    if (there) *out = p->free[--p->count];
    pthread_mutex_unlock(&p->lock);
    return there || open_landing(out);
}

static void give_back(ek_file_parts *p, landing *l)
{
    pthread_mutex_lock(&p->lock);
    bool room = p->count < MOST_LANDINGS;
    if (room) p->free[p->count++] = *l;
    pthread_mutex_unlock(&p->lock);
    if (!room) close_landing(l);
}

/* Of a page that the file ends in the rest reads as zeros, without an error: so the size is looked at afterwards. */
static bool is_whole(const ek_file_parts *p)
{
    struct stat info;
    return fstat(p->descriptor, &info) == 0 && (uint64_t)info.st_size >= p->size;
}

static bool land(const ek_file_parts *p, const landing *to, const int64_t *offset, int n, size_t bytes)
{
    struct iovec part[AT_ONCE];
    for (int i = 0; i < n; i++) {
        if (offset[i] < 0 || (uint64_t)offset[i] > p->size || bytes > p->size - (uint64_t)offset[i])
            return false;
        part[i] = (struct iovec){p->file + offset[i], bytes};
    }
    return pwritev(to->descriptor, part, n, 0) == (ssize_t)((size_t)n * bytes) && is_whole(p);
}

bool ek_file_parts_read(ek_file_parts *p, const int64_t *offset, int64_t n, size_t bytes, unsigned char *out)
{
    landing to;
    if (bytes > EK_PART_BYTES || !take_landing(p, &to)) return false;
    bool all = true;
    for (int64_t i = 0; i < n && all; i += AT_ONCE) {
        int here = n - i < AT_ONCE ? (int)(n - i) : AT_ONCE;
        all = land(p, &to, offset + i, here, bytes);
        if (all) memcpy(out + (size_t)i * bytes, to.bytes, (size_t)here * bytes);
    }
    give_back(p, &to);
    return all;
}

void ek_file_parts_close(ek_file_parts *p)
{
    if (!p) return;
    for (int i = 0; i < p->count; i++) close_landing(&p->free[i]);
    munmap(p->file, p->size);
    pthread_mutex_destroy(&p->lock);
    ek_free(p);
}
