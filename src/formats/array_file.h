/* An array whose numbers stay in their file, to be read part by part. */
#ifndef EK_FORMATS_ARRAY_FILE_H
#define EK_FORMATS_ARRAY_FILE_H

#include "core/numbers.h"
#include "formats/arrays.h"

typedef struct ek_array_file {
    int descriptor; /* -1: closed */
    int64_t offset; /* of the first number */
    ek_number number;
    bool big_endian;
    bool packed;  /* by gzip */
    bool fortran; /* the first index is the fastest, and there are several */
    int rank;
    int64_t dim[EK_ARRAY_MAX_RANK], count;
} ek_array_file;

/* IDX or NPY, by the file's first bytes. The header has been read and held against the file's size. */
ek_status ek_array_file_open(const char *path, ek_array_file *out);
void ek_array_file_close(ek_array_file *file);

/* Numbers [first, first + count) as they lie in the file, which is neither packed nor Fortran's: count *
 * ek_number_size(file->number) bytes. May be called by several threads at a time. The message names no file. */
ek_status ek_array_file_read(const ek_array_file *file, int64_t first, int64_t count, unsigned char *raw);
/* The same decoded, as an array of rank 1. */
ek_status ek_array_file_part(const ek_array_file *file, int64_t first, int64_t count, ek_array *out);

/* What ek_array_file_open chooses among. */
ek_status ek_idx_open(const char *path, ek_array_file *out);
ek_status ek_npy_open(const char *path, ek_array_file *out);

#endif
