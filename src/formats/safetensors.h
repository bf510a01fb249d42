/* safetensors files: named tensors and string metadata. Every file is taken as hostile. */
#ifndef EK_FORMATS_SAFETENSORS_H
#define EK_FORMATS_SAFETENSORS_H

#include "core/numbers.h"

#define EK_SAFETENSORS_MAX_RANK 8

typedef struct ek_st_tensor {
    char *name;
    ek_number dtype;
    int rank;
    int64_t dim[EK_SAFETENSORS_MAX_RANK];
    int64_t count;
    const unsigned char *bytes; /* in the file's memory; may be unaligned */
} ek_st_tensor;

typedef struct ek_st_entry {
    char *key, *value;
} ek_st_entry;

typedef struct ek_safetensors {
    unsigned char *memory;
    size_t size;
    ek_st_tensor *tensor; /* in the order of their data */
    int count;
    ek_st_entry *metadata;
    int metadata_count;
} ek_safetensors;

ek_status ek_safetensors_read(const char *path, ek_safetensors *out);
/* The same from bytes that it takes over (ek_free'd with it, also on failure). For tests and fuzzing. */
ek_status ek_safetensors_parse(unsigned char *memory, size_t size, ek_safetensors *out);
void ek_safetensors_free(ek_safetensors *file);

const ek_st_tensor *ek_safetensors_find(const ek_safetensors *file, const char *name); /* NULL */
const char *ek_safetensors_metadata(const ek_safetensors *file, const char *key);      /* NULL */

/* Converts to float or int64, any dtype; integers to float and back only where exact, else EK_E_FORMAT. */
ek_status ek_st_to_float(const ek_st_tensor *tensor, float *out);
ek_status ek_st_to_int64(const ek_st_tensor *tensor, int64_t *out);

/* Writing: add everything, then write. Tensors' data is borrowed until then. Only F32, F64, I64 are written. */
typedef struct ek_st_writer {
    ek_st_tensor *tensor;
    int count, room;
    ek_st_entry *metadata;
    int metadata_count, metadata_room;
} ek_st_writer;

ek_status ek_st_add(ek_st_writer *writer, const char *name, ek_number dtype, int rank, const int64_t *dim,
                    const void *data);
/* Of a key added twice the last value is written. */
ek_status ek_st_add_metadata(ek_st_writer *writer, const char *key, const char *value);
/* Atomically (core/file.h); header padded so that the data is aligned to 8 bytes. */
ek_status ek_st_write(const ek_st_writer *writer, const char *path);
void ek_st_writer_free(ek_st_writer *writer);

#endif
