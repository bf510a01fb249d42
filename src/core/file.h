/* Reading whole files and replacing files safely. */
#ifndef EK_CORE_FILE_H
#define EK_CORE_FILE_H

#include "core/status.h"

#include <stdio.h>

/* The whole of a regular file, at most `limit` bytes (EK_E_FORMAT beyond), with a zero after it.
 * The caller frees *data with ek_free. */
ek_status ek_file_read(const char *path, size_t limit, unsigned char **data, size_t *size);

/* The first bytes of a regular file, *got of them: fewer than `size` where it is shorter. */
ek_status ek_file_begin(const char *path, size_t size, unsigned char *bytes, size_t *got);

/* A regular file to be read at any place, by several threads at a time; *size: the bytes that it has now. */
ek_status ek_file_open(const char *path, int *descriptor, int64_t *size);
/* `size` bytes from `offset` on. EK_E_FORMAT: the file ends before them. The message names no file. */
ek_status ek_file_read_at(int descriptor, int64_t offset, size_t size, void *bytes);
void ek_file_close(int *descriptor); /* and sets it to -1; of -1: nothing */

/* The same for a library that wants a FILE. */
ek_status ek_file_open_stream(const char *path, FILE **file);

/* Replacing: writes go to a new file beside `path`, path.unfinished; finish syncs and renames it, so that `path` holds
 * either what it held or all of the new content; cancel removes it. A link at `path` is followed. What a process leaves
 * that is killed while it writes is taken away by the next one that writes the file. */
typedef struct ek_replacement {
    FILE *file;
    char *path, *temporary;
    int lock; /* a descriptor of the file beyond `file`'s end: it must not be taken for a leftover before it is renamed */
} ek_replacement;

ek_status ek_replace_begin(ek_replacement *replacement, const char *path);
ek_status ek_replace_write(ek_replacement *replacement, const void *data, size_t size);
ek_status ek_replace_finish(ek_replacement *replacement); /* cancels itself on failure */
void ek_replace_cancel(ek_replacement *replacement);      /* harmless after finish */

#endif
