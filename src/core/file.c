#include "core/file.h"

#include "core/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Without blocking: a named pipe would make open wait for somebody to write into it. */
ek_status ek_file_open(const char *path, int *descriptor, int64_t *size)
{
    struct stat info;
    int opened = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (opened < 0) return ek_fail_errno("cannot open %s", path);
    ek_status status = EK_OK;
    if (fstat(opened, &info) != 0)
        status = ek_fail_errno("cannot read %s", path);
    else if (!S_ISREG(info.st_mode))
        status = ek_fail(EK_E_IO, "cannot read %s: it is %s", path,
                         S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
    if (status == EK_OK) {
        *descriptor = opened;
        *size = info.st_size;
    } else {
        close(opened);
    }
    return status;
}

void ek_file_close(int *descriptor)
{
    if (*descriptor >= 0) close(*descriptor);
    *descriptor = -1;
}

ek_status ek_file_read_at(int descriptor, int64_t offset, size_t size, void *bytes)
{
    for (unsigned char *at = bytes; size > 0;) {
        ssize_t got = pread(descriptor, at, size, offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ek_fail_errno("it cannot be read");
        if (got == 0)
            return ek_fail(EK_E_FORMAT, "it is cut short: it ends at byte %lld or before, though it went on there when it was opened",
                           (long long)offset);
        at += got;
        offset += got;
        size -= (size_t)got;
    }
    return EK_OK;
}

static ek_status open_regular(const char *path, FILE **file, int64_t *size)
{
    int descriptor;
    EK_TRY(ek_file_open(path, &descriptor, size));
    *file = fdopen(descriptor, "rb");
    if (*file) return EK_OK;
    ek_status status = ek_fail_errno("cannot open %s", path);
    close(descriptor);
    return status;
}

ek_status ek_file_open_stream(const char *path, FILE **file)
{
    int64_t size;
    return open_regular(path, file, &size);
}

ek_status ek_file_begin(const char *path, size_t size, unsigned char *bytes, size_t *got)
{
    FILE *file = NULL;
    int64_t there;
    EK_TRY(open_regular(path, &file, &there));
    *got = fread(bytes, 1, size, file);
    ek_status status = ferror(file) ? ek_fail_errno("cannot read %s", path) : EK_OK;
    fclose(file);
    return status;
}

ek_status ek_file_read(const char *path, size_t limit, unsigned char **data, size_t *size)
{
    FILE *file = NULL;
    int64_t there;
    EK_TRY(open_regular(path, &file, &there));
    unsigned char *bytes = NULL;
    ek_status status = EK_OK;
    if ((uintmax_t)there > limit) {
        status = ek_fail(EK_E_FORMAT, "%s has %lld bytes; at most %zu are read", path,
                         (long long)there, limit);
        goto done;
    }
    size_t count = (size_t)there;
    EK_GO(EK_NEW(bytes, count + 1));
    /* The file may have changed since fstat: what is there now is what counts. */
    size_t got = fread(bytes, 1, count, file);
    if (ferror(file)) {
        status = ek_fail_errno("cannot read %s", path);
        goto done;
    }
    *data = bytes;
    *size = got;
    bytes = NULL;
done:
    ek_free(bytes);
    fclose(file);
    return status;
}

static void forget(ek_replacement *r)
{
    if (r->temporary) close(r->lock);
    ek_free(r->path);
    ek_free(r->temporary);
    *r = (ek_replacement){0};
}

/* --- files that are being written
 *
 * Whoever writes one holds a lock on it, which ends with the process however that ends; so one without a lock is what a
 * process left that was killed. File systems without locks fail here in another way, and nothing is taken away. */

static bool is_named(int descriptor, const char *name)
{
    struct stat open, named;
    return fstat(descriptor, &open) == 0 && lstat(name, &named) == 0 && open.st_dev == named.st_dev &&
           open.st_ino == named.st_ino;
}

/* True: it was one that nobody writes, and it is gone. */
static bool clear_leftover(const char *name)
{
    int descriptor = open(name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    struct stat info;
    bool left = descriptor >= 0 && fstat(descriptor, &info) == 0 && S_ISREG(info.st_mode) &&
                flock(descriptor, LOCK_EX | LOCK_NB) == 0 && is_named(descriptor, name) && unlink(name) == 0;
    if (descriptor >= 0) close(descriptor);
    return left;
}

/* A new file beside `path`, opened; -1 with errno set. Its name is made here and not by mkstemp, whose files are
 * private: this one is as open as the user's mask allows, and asking for the mask would change it for a moment. It is
 * the same name each time, so that the next to write the file meets what a killed one left. */
static int open_beside(const char *path, char **name)
{
    enum { MOST = 1000 };
    int descriptor = -1, number = 0, tries = 0;
    do {
        ek_free(*name);
        *name = number ? ek_strf("%s.unfinished-%d", path, number) : ek_strf("%s.unfinished", path);
        if (!*name) return -1;
        descriptor = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0) {
            bool met = flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
            if (!met && is_named(descriptor, *name)) return descriptor;
            close(descriptor); /* taken for a leftover before it had its lock */
            descriptor = -1;
            errno = EEXIST;
        } else if (errno == EEXIST && !clear_leftover(*name)) {
            number++;
            errno = EEXIST;
        }
    } while (errno == EEXIST && ++tries < MOST);
    return descriptor;
}

/* What is to be replaced: through a link the file it names, not the link. *mode: of the file that is there, else -1. */
static ek_status find_target(const char *path, char **target, int *mode)
{
    char *resolved = realpath(path, NULL);
    if (!resolved && errno == ENOMEM) return ek_fail(EK_E_MEMORY, "out of memory");
    *target = ek_strdup(resolved ? resolved : path);
    free(resolved);
    if (!*target) return EK_E_MEMORY;
    struct stat info;
    *mode = stat(*target, &info) == 0 ? (int)info.st_mode : -1;
    if (*mode >= 0 && !S_ISREG(info.st_mode))
        return ek_fail(EK_E_IO, "cannot write %s: it is %s", path,
                       S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
    return EK_OK;
}

static ek_status begin(ek_replacement *r, const char *path)
{
    int mode;
    EK_TRY(find_target(path, &r->path, &mode));
    char *name = NULL;
    int descriptor = open_beside(r->path, &name);
    if (!name) return EK_E_MEMORY;
    if (descriptor < 0) {
        ek_status status = ek_fail_errno("cannot write %s", path);
        ek_free(name);
        return status;
    }
    r->temporary = name;
    r->lock = descriptor;
    if (mode >= 0) (void)!fchmod(descriptor, (mode_t)mode & 0777);
    int written = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    r->file = written < 0 ? NULL : fdopen(written, "wb");
    if (r->file) return EK_OK;
    ek_status status = ek_fail_errno("cannot write %s", path);
    if (written >= 0) close(written);
    return status;
}

ek_status ek_replace_begin(ek_replacement *r, const char *path)
{
    *r = (ek_replacement){0};
    ek_status status = begin(r, path);
    if (status != EK_OK) ek_replace_cancel(r);
    return status;
}

ek_status ek_replace_write(ek_replacement *r, const void *data, size_t size)
{
    if (size && fwrite(data, 1, size, r->file) != size) return ek_fail_errno("cannot write %s", r->path);
    return EK_OK;
}

ek_status ek_replace_finish(ek_replacement *r)
{
    bool written = fflush(r->file) == 0 && fsync(fileno(r->file)) == 0;
    int error = errno;
    if (fclose(r->file) != 0 && written) {
        written = false;
        error = errno;
    }
    r->file = NULL;
    if (written && rename(r->temporary, r->path) != 0) {
        written = false;
        error = errno;
    }
    if (!written) {
        errno = error;
        ek_status status = ek_fail_errno("cannot write %s", r->path);
        ek_replace_cancel(r);
        return status;
    }
    /* The new name is safe once its folder is on disk too; some file systems cannot sync a folder. */
    ek_status status = EK_OK;
    int folder = open(dirname(r->temporary), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        if (fsync(folder) != 0 && errno == EIO) status = ek_fail_errno("cannot write %s", r->path);
        close(folder);
    }
    forget(r);
    return status;
}

void ek_replace_cancel(ek_replacement *r)
{
    if (r->file) fclose(r->file);
    if (r->temporary) unlink(r->temporary);
    forget(r);
}

ek_status ek_file_write(const char *path, const void *data, size_t size)
{
    ek_replacement file = {0};
    if (!path || (!data && size)) return ek_fail(EK_E_ARGUMENT, "ek_file_write needs a path and data");
    ek_status status = EK_OK;
    EK_GO(ek_replace_begin(&file, path));
    EK_GO(ek_replace_write(&file, data, size));
    EK_GO(ek_replace_finish(&file));
done:
    ek_replace_cancel(&file);
    return status;
}

/* --- claims: a lock on path.lock */

struct ek_claim {
    char *name;
    int descriptor; /* -1: the file system has no locks */
};

static ek_status refuse(const char *path, int descriptor)
{
    char who[128];
    ssize_t length = pread(descriptor, who, sizeof who - 1, 0);
    who[length > 0 ? length : 0] = 0;
    who[strcspn(who, "\n")] = 0;
    return ek_fail(EK_E_IO, "cannot write %s: another run will%s%s%s; wait for it, stop it, or name another file", path,
                   *who ? " (" : "", who, *who ? ")" : "");
}

/* Who has the claim, for those who are refused. */
static void sign(int descriptor)
{
    char host[65] = "";
    if (gethostname(host, sizeof host - 1) != 0) *host = 0;
    (void)!ftruncate(descriptor, 0);
    (void)!dprintf(descriptor, "process %ld%s%s\n", (long)getpid(), *host ? " on " : "", host);
}

static ek_status claim(ek_claim *c, const char *path)
{
    do {
        c->descriptor = open(c->name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
        if (c->descriptor < 0) {
            int error = errno;
            bool in_the_way = access(c->name, F_OK) == 0; /* another user's */
            errno = error;
            return ek_fail_errno("cannot write %s", in_the_way ? c->name : path);
        }
        if (flock(c->descriptor, LOCK_EX | LOCK_NB) != 0) {
            ek_status status = errno == EWOULDBLOCK ? refuse(path, c->descriptor) : EK_OK;
            close(c->descriptor);
            c->descriptor = -1;
            if (status == EK_OK) unlink(c->name);
            return status;
        }
        if (is_named(c->descriptor, c->name)) {
            sign(c->descriptor);
            return EK_OK;
        }
        close(c->descriptor); /* of one who gave it up meanwhile */
    } while (true);
}

ek_status ek_file_claim(const char *path, ek_claim **out)
{
    if (!path || !out) return ek_fail(EK_E_ARGUMENT, "ek_file_claim needs a path and a place for the claim");
    char *target = NULL;
    ek_claim *c = NULL;
    int mode;
    ek_status status = EK_OK;
    EK_GO(find_target(path, &target, &mode));
    EK_GO(EK_NEW(c, 1));
    if (!(c->name = ek_strf("%s.lock", target))) {
        status = EK_E_MEMORY;
        goto done;
    }
    EK_GO(claim(c, path));
    *out = c;
    c = NULL;
done:
    if (c) ek_free(c->name);
    ek_free(c);
    ek_free(target);
    return status;
}

void ek_claim_release(ek_claim *c)
{
    if (!c) return;
    if (c->descriptor >= 0) {
        unlink(c->name);
        close(c->descriptor);
    }
    ek_free(c->name);
    ek_free(c);
}
