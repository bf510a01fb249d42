/* Where data sets come from; what ek_dataset_open chooses among. */
#ifndef EK_DATA_SOURCES_H
#define EK_DATA_SOURCES_H

#include "data/dataset.h"
#include "formats/arrays.h"

/* Puts images [n, h, w] or [n, c, h, w] or features [n, f] and their labels [n] together. x's data may be
 * taken over. The names are for messages. */
ek_status ek_dataset_from_arrays(ek_array *x, const char *x_name, const ek_array *y, const char *y_name,
                                 ek_dataset **out);

/* class_name = copies of the names; labels must be below `count`. */
ek_status ek_dataset_name_classes(ek_dataset *dataset, const char *const *names, int count,
                                  const char *origin);

/* Two files, IDX or NPY. */
ek_status ek_pair_open(const char *x_path, const char *y_path, ek_dataset **out);

/* A folder with IDX files or {train,test}_{x,y}.npy. */
ek_status ek_folder_open(const char *folder, ek_split split, ek_dataset **out);
/* Whether the folder has the images of the split (EK_SPLIT_ANY: of any). */
ek_status ek_folder_has(const char *folder, ek_split split, bool *has);

/* fashion-mnist, mnist: from the first place that has it. */
bool ek_named_set_known(const char *name);
ek_status ek_named_set_open(const char *name, ek_split split, ek_dataset **out);

/* `spec` is synthetic, synthetic:3x32x32 or synthetic:20. */
ek_status ek_synthetic_open(const char *spec, ek_split split, ek_dataset **out);

#endif
