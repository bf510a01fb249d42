/* A folder of files under their usual names: IDX as the MNIST family has them, or NPY. */
#include "data/sources.h"

#include "core/memory.h"

#include <unistd.h>

static bool exists(const char *path) { return access(path, F_OK) == 0; }

static const char *word(ek_split split) { return split == EK_SPLIT_TEST ? "test" : "train"; }

/* *path = the first name under which the folder has the split's images ('x') or labels ('y'), NULL if none:
 *   train-images-idx3-ubyte, train-images.idx3-ubyte, t10k-labels-idx1-ubyte, test-..., each also .gz
 *   train_x.npy, test_y.npy */
static ek_status find_file(const char *folder, ek_split split, char part, char **path)
{
    static const char *const prefixes[] = {"t10k", "test", "train"};
    int first = split == EK_SPLIT_TEST ? 0 : 2, last = split == EK_SPLIT_TEST ? 1 : 2;
    const char *kind = part == 'x' ? "images" : "labels", *digit = part == 'x' ? "3" : "1";
    for (int i = first; i <= last; i++) {
        for (int form = 0; form < 4; form++) {
            *path = ek_strf("%s/%s-%s%sidx%s-ubyte%s", folder, prefixes[i], kind, form & 2 ? "." : "-", digit,
                            form & 1 ? ".gz" : "");
            if (!*path) return EK_E_MEMORY;
            if (exists(*path)) return EK_OK;
            ek_free(*path);
        }
    }
    *path = ek_strf("%s/%s_%c.npy", folder, word(split), part);
    if (!*path) return EK_E_MEMORY;
    if (exists(*path)) return EK_OK;
    ek_free(*path);
    *path = NULL;
    return EK_OK;
}

ek_status ek_folder_has(const char *folder, ek_split split, bool *has)
{
    *has = false;
    if (split == EK_SPLIT_ANY) {
        EK_TRY(ek_folder_has(folder, EK_SPLIT_TEST, has));
        return *has ? EK_OK : ek_folder_has(folder, EK_SPLIT_TRAIN, has);
    }
    char *path;
    EK_TRY(find_file(folder, split, 'x', &path));
    *has = path != NULL;
    ek_free(path);
    return EK_OK;
}

ek_status ek_files_open(const char *x_path, const char *y_path, const char *lengths_path, ek_dataset **out)
{
    ek_status status = EK_OK;
    ek_source x = {.file.descriptor = -1}, y = x, lengths = x;
    EK_GO(ek_source_load(x_path, &x));
    EK_GO(ek_source_load(y_path, &y));
    if (lengths_path) EK_GO(ek_source_load(lengths_path, &lengths));
    EK_GO(ek_dataset_from_arrays(&x, &y, lengths_path ? &lengths : NULL, out));
done:
    ek_source_clear(&x);
    ek_source_clear(&y);
    ek_source_clear(&lengths);
    return status;
}

/* *path = the folder's lengths, NULL if it has none. */
static ek_status find_lengths(const char *folder, ek_split split, char **path)
{
    *path = ek_strf("%s/%s_lengths.npy", folder, word(split));
    if (!*path) return EK_E_MEMORY;
    if (exists(*path)) return EK_OK;
    ek_free(*path);
    *path = NULL;
    return EK_OK;
}

ek_status ek_folder_open(const char *folder, ek_split split, ek_dataset **out)
{
    ek_status status = EK_OK;
    char *x = NULL, *y = NULL, *lengths = NULL;
    bool test = false;
    if (split == EK_SPLIT_ANY) {
        EK_GO(ek_folder_has(folder, EK_SPLIT_TEST, &test));
        split = test ? EK_SPLIT_TEST : EK_SPLIT_TRAIN;
    }
    EK_GO(find_file(folder, split, 'x', &x));
    EK_GO(find_file(folder, split, 'y', &y));
    if (!x) {
        status =
            ek_fail(EK_E_NOT_FOUND,
                    "the folder %s has no %s data: neither %s-images-idx3-ubyte (or .gz) nor %s_x.npy, nor "
                    "folders with images",
                    folder, word(split), split == EK_SPLIT_TEST ? "t10k" : "train", word(split));
        goto done;
    }
    if (!y) {
        status = ek_fail(
            EK_E_NOT_FOUND,
            "the folder %s has %s images but no labels: neither %s-labels-idx1-ubyte (or .gz) nor %s_y.npy",
            folder, word(split), split == EK_SPLIT_TEST ? "t10k" : "train", word(split));
        goto done;
    }
    EK_GO(find_lengths(folder, split, &lengths));
    EK_GO(ek_files_open(x, y, lengths, out));
done:
    ek_free(lengths);
    ek_free(x);
    ek_free(y);
    return status;
}
