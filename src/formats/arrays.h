/* Arrays of numbers from IDX (plain or gzip), NPY, CSV and image files. Every file is taken as hostile. */
#ifndef EK_FORMATS_ARRAYS_H
#define EK_FORMATS_ARRAYS_H

#include "core/status.h"

#define EK_ARRAY_MAX_RANK 5

typedef enum ek_array_type { EK_ARRAY_U8, EK_ARRAY_F32, EK_ARRAY_I64 } ek_array_type;

/* Bytes stay bytes; other integers become int64, reals float32 (F64 rounded). */
typedef struct ek_array {
    ek_array_type type;
    int rank;
    int64_t dim[EK_ARRAY_MAX_RANK];
    int64_t count;
    void *data; /* ek_free */
} ek_array;

void ek_array_clear(ek_array *array);

/* As numbers: bytes count as 0 to 1, integers must be exact in float. */
ek_status ek_array_to_float(const ek_array *array, float *out, const char *path);

/* IDX or NPY, by the file's first bytes. */
ek_status ek_array_load(const char *path, ek_array *out);

/* .gz is seen by its first bytes, not by its name. Uncompressed size is capped by what the header says. */
ek_status ek_idx_read(const char *path, ek_array *out);
/* Fortran order is put into C order; big-endian is read; object dtypes are refused. */
ek_status ek_npy_read(const char *path, ek_array *out);
/* float32, version 1.0, written atomically. */
ek_status ek_npy_write(const char *path, int rank, const int64_t *dim, const float *data);
/* Rows of numbers: commas, semicolons, tabs or spaces; blank lines and # comments skipped; one header line
 * allowed. Errors give line and column. A last column of names instead of numbers becomes their index in order
 * of first appearance. The file is read once, from front to back, with memory for what is kept of it alone. */
typedef struct ek_table_rows ek_table_rows;
typedef struct ek_table {
    int64_t rows, columns;
    float *values; /* [rows, columns - 1], all but the last column; NULL: more than was to be kept, see `file` */
    float *last;   /* [rows], the last column */
    char **names;  /* of the last column; else NULL */
    int name_count;
    ek_table_rows *file; /* reads the values later; NULL: they are there */
} ek_table;
/* memory: bytes of values to be kept. EK_E_UNSUPPORTED: there are more, and they are packed. */
ek_status ek_csv_read(const char *path, size_t memory, ek_table *out);
void ek_table_clear(ek_table *table);

/* Values of the rows index[0] to index[n-1], one behind the other. Several threads at a time, each with scratch memory of
 * its own. The message names no file. */
ek_status ek_table_rows_read(const ek_table_rows *rows, const int64_t *index, int64_t n, float *out,
                             unsigned char *scratch);
size_t ek_table_rows_scratch(const ek_table_rows *rows); /* bytes */
void ek_table_rows_destroy(ek_table_rows *rows);
/* u8 [c, h, w] of a PNG or JPEG file, c = 1 or 3 as asked (colour is turned to grey, grey repeated; alpha over black).
 * EK_E_UNSUPPORTED: built without its library, or more pixels than are read (image.h). */
ek_status ek_image_read(const char *path, int channels, ek_array *out);

#endif
