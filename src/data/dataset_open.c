/* From a data set's specification to its source. */
#include "core/memory.h"
#include "core/text.h"
#include "data/sources.h"
#include "data/stored.h"

#include <string.h>
#include <sys/stat.h>

/* Data that is not split is training data. */
static ek_status one_set_only(const char *spec, ek_split split)
{
    if (split != EK_SPLIT_TEST) return EK_OK;
    return ek_fail(
        EK_E_NOT_FOUND,
        "%s is one set, without a test split: give test data of its own, or hold some out for validation",
        spec);
}

/* x,y or x,y,lengths */
static ek_status open_files(const char *spec, ek_dataset **out)
{
    enum { MOST = 3 };
    char *part[MOST] = {NULL};
    ek_status status = EK_OK;
    for (int i = 0; spec && i < MOST; i++) {
        const char *comma = i < MOST - 1 ? strchr(spec, ',') : NULL;
        part[i] = ek_strndup(spec, comma ? (size_t)(comma - spec) : strlen(spec));
        if (!part[i]) status = EK_E_MEMORY;
        spec = comma ? comma + 1 : NULL;
    }
    EK_GO(status);
    EK_GO(ek_files_open(part[0], part[1], part[2], out));
done:
    for (int i = 0; i < MOST; i++) ek_free(part[i]);
    return status;
}

/* The last column of the table is the class, the others are features. */
static ek_status open_csv(const char *path, ek_dataset **out)
{
    ek_table t;
    size_t memory;
    EK_TRY(ek_data_memory(&memory));
    EK_TRY(ek_csv_read(path, memory, &t));
    ek_status status = EK_OK;
    ek_dataset *d = NULL;
    int64_t features = t.columns - 1;
    ek_source x = {
        .name = path,
        .array = {.type = EK_ARRAY_F32, .rank = 2, .dim = {t.rows, features}, .count = t.rows * features},
        .file.descriptor = -1};
    ek_source y = {.name = path,
                   .array = {.type = EK_ARRAY_F32, .rank = 1, .dim = {t.rows}, .count = t.rows},
                   .file.descriptor = -1};
    if (features < 1) {
        status = ek_fail(EK_E_FORMAT,
                         "%s has one column; features and, in the last column, the class are needed", path);
        goto done;
    }
    x.array.data = t.values;
    y.array.data = t.last;
    t.values = t.last = NULL;
    if (t.file) EK_GO(ek_stored_rows(&t.file, path, features, &x.stored));
    EK_GO(ek_dataset_from_arrays(&x, &y, NULL, &d));
    if (t.names) EK_GO(ek_dataset_name_classes(d, (const char *const *)t.names, t.name_count, path));
    *out = d;
    d = NULL;
done:
    ek_dataset_destroy(d);
    ek_source_clear(&x);
    ek_source_clear(&y);
    ek_table_clear(&t);
    return status;
}

/* Files with names that are known, or else folders of images. */
static ek_status open_folder(const char *folder, ek_split split, ek_dataset **out)
{
    bool files, images;
    EK_TRY(ek_folder_has(folder, EK_SPLIT_ANY, &files));
    EK_TRY(ek_image_folder_is(folder, &images));
    return !files && images ? ek_image_folder_open(folder, split, NULL, out)
                            : ek_folder_open(folder, split, out);
}

ek_status ek_dataset_open(const char *spec, ek_split split, ek_dataset **out)
{
    if (!spec || !*spec)
        return ek_fail(EK_E_ARGUMENT,
                       "no data is named: say, for example, fashion-mnist, synthetic, a folder or data.csv");
    if (split != EK_SPLIT_ANY && split != EK_SPLIT_TRAIN && split != EK_SPLIT_TEST)
        return ek_fail(EK_E_ARGUMENT, "there is no split number %d", (int)split);
    if (ek_named_set_known(spec)) return ek_named_set_open(spec, split, out);
    if (!strncmp(spec, "synthetic", 9) && (!spec[9] || spec[9] == ':'))
        return ek_synthetic_open(spec, split, out);

    char *folder = NULL;
    ek_shape scale;
    bool scaled;
    EK_TRY(ek_scaled_spec(spec, &folder, &scale, &scaled));
    if (scaled) {
        ek_status status = ek_image_folder_open(folder, split, &scale, out);
        ek_free(folder);
        return status;
    }
    static const char *const names[] = {"fashion-mnist", "mnist", "synthetic"};
    struct stat info;
    bool there = stat(spec, &info) == 0;
    if (there && S_ISDIR(info.st_mode)) return open_folder(spec, split, out);
    if (ek_ends_with(spec, ".csv") || ek_ends_with(spec, ".csv.gz")) {
        EK_TRY(one_set_only(spec, split));
        return open_csv(spec, out);
    }
    if (strchr(spec, ',')) {
        EK_TRY(one_set_only(spec, split));
        return open_files(spec, out);
    }
    if (there)
        return ek_fail(
            EK_E_FORMAT,
            "%s is not a data set: give images and labels as two files, x.npy,y.npy (sequences with "
            "their lengths as three, x.npy,y.npy,lengths.npy), or a folder, or a .csv file",
            spec);
    const char *nearest = ek_nearest(spec, names, sizeof names / sizeof names[0]);
    if (nearest) return ek_fail(EK_E_NOT_FOUND, "there is no data '%s'; did you mean %s?", spec, nearest);
    return ek_fail(EK_E_NOT_FOUND,
                   "there is no data '%s': it can be fashion-mnist, mnist, synthetic, a folder, x.npy,y.npy "
                   "or a .csv file",
                   spec);
}
