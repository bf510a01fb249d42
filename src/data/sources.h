/* Where data sets come from; what ek_dataset_open chooses among. */
#ifndef EK_DATA_SOURCES_H
#define EK_DATA_SOURCES_H

#include "data/dataset.h"
#include "formats/array_file.h"

/* An array, and what it is called in messages. Its numbers are in memory, or else in its file, or what `stored` reads. */
typedef struct ek_source {
    ek_array array; /* data NULL: not in memory */
    const char *name;
    ek_array_file file;       /* descriptor -1: none */
    struct ek_stored *stored; /* NULL: none */
} ek_source;

/* IDX or NPY, into memory only where it is packed or in Fortran's order; EK_E_UNSUPPORTED: too large for that. The name
 * is not copied. */
ek_status ek_source_load(const char *path, ek_source *out);
void ek_source_clear(ek_source *source);

/* Puts images [n, h, w] or [n, c, h, w] or features [n, f] and their labels [n] together; with lengths [n] (NULL: none)
 * sequences [n, c, l] or [n, l]. What x holds may be taken over. */
ek_status ek_dataset_from_arrays(ek_source *x, const ek_source *y, const ek_source *lengths,
                                 ek_dataset **out);

/* class_name = copies of the names; labels must be below `count`. */
ek_status ek_dataset_name_classes(ek_dataset *dataset, const char *const *names, int count,
                                  const char *origin);

/* Two files, IDX or NPY, or three: lengths NULL: there are none. */
ek_status ek_files_open(const char *x, const char *y, const char *lengths, ek_dataset **out);

/* A folder with IDX files or {train,test}_{x,y,lengths}.npy. */
ek_status ek_folder_open(const char *folder, ek_split split, ek_dataset **out);
/* Whether the folder has the images of the split (EK_SPLIT_ANY: of any). */
ek_status ek_folder_has(const char *folder, ek_split split, bool *has);

/* A folder of images, a folder for each class; in the folders train and test (or val), or one set. shape NULL: they are all
 * of one size; else they are scaled to it (ek_image_scale), [c, h, w] with c 1 or 3. */
ek_status ek_image_folder_open(const char *folder, ek_split split, const ek_shape *shape, ek_dataset **out);
/* Whether there may be one: the folder has folders, or images. */
ek_status ek_image_folder_is(const char *folder, bool *is);
/* "path:3x32x32" where nothing is called so: *path (ek_free) is what stands before the colon, *scaled tells. */
ek_status ek_scaled_spec(const char *spec, char **path, ek_shape *shape, bool *scaled);

/* fashion-mnist, mnist: from the first place that has it. */
bool ek_named_set_known(const char *name);
ek_status ek_named_set_open(const char *name, ek_split split, ek_dataset **out);

/* `spec` is synthetic, synthetic:3x32x32 or synthetic:20. */
ek_status ek_synthetic_open(const char *spec, ek_split split, ek_dataset **out);

#endif
