#include "core/file.h"

#include "core/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
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
    ek_free(r->path);
    ek_free(r->temporary);
    *r = (ek_replacement){0};
}

/* A new file beside `path`, opened; -1 with errno set. Its name is made here and not by mkstemp, whose files are
 * private: this one is as open as the user's mask allows, and asking for the mask would change it for a moment. */
static int open_beside(const char *path, char **name)
{
    int descriptor = -1, number = 0;
    do {
        ek_free(*name);
        *name = ek_strf("%s.%ld.%d", path, (long)getpid(), number);
        if (!*name) break;
        descriptor = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (descriptor < 0 && errno == EEXIST && ++number < 1000);
    return descriptor;
}

static ek_status begin(ek_replacement *r, const char *path)
{
    /* Through a link, the file it names is replaced, not the link. */
    char *resolved = realpath(path, NULL);
    r->path = ek_strdup(resolved ? resolved : path);
    free(resolved);
    if (!r->path) return EK_E_MEMORY;
    struct stat info;
    bool exists = stat(r->path, &info) == 0;
    if (exists && !S_ISREG(info.st_mode))
        return ek_fail(EK_E_IO, "cannot write %s: it is %s", path,
                       S_ISDIR(info.st_mode) ? "a folder" : "not a regular file");
    char *name = NULL;
    int descriptor = open_beside(r->path, &name);
    if (!name) return EK_E_MEMORY;
    if (descriptor < 0) {
        ek_status status = ek_fail_errno("cannot write %s", path);
        ek_free(name);
        return status;
    }
    r->temporary = name;
    if (exists) (void)!fchmod(descriptor, info.st_mode & 0777);
    r->file = fdopen(descriptor, "wb");
    if (r->file) return EK_OK;
    ek_status status = ek_fail_errno("cannot write %s", path);
    close(descriptor);
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
    int folder = open(dirname(r->temporary), O_RDONLY | O_DIRECTORY);
    if (folder >= 0) {
        (void)!fsync(folder);
        close(folder);
    }
    forget(r);
    return EK_OK;
}

void ek_replace_cancel(ek_replacement *r)
{
    if (r->file) fclose(r->file);
    if (r->temporary) unlink(r->temporary);
    forget(r);
}
