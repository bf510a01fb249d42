/* The data sets that are known by name, and where they are looked for. */
#include "data/sources.h"

#include "core/memory.h"
#include "core/text.h"

#include <stdlib.h>
#include <string.h>

enum { CLASSES = 10, PLACES = 5 };

static const struct named {
    const char *name, *remedy;
    const char *class_name[CLASSES];
} sets[] = {
    {"fashion-mnist",
     "get it with scripts/get-data.sh fashion-mnist, or on Debian with apt-get install dataset-fashion-mnist",
     {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
      "Ankle boot"}},
    {"mnist", "get it with scripts/get-data.sh mnist", {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}},
};

static const struct named *find_named(const char *name)
{
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (!strcmp(sets[i].name, name)) return &sets[i];
    }
    return NULL;
}

bool ek_named_set_known(const char *name) { return find_named(name) != NULL; }

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* Appends a folder to the list when its base is known. */
static ek_status add_place(char **place, int *count, const char *base, const char *below, const char *name)
{
    if (!base) return EK_OK;
    place[*count] = ek_strf("%s%s%s%s", base, below, *name ? "/" : "", name);
    return place[(*count)++] ? EK_OK : EK_E_MEMORY;
}

static ek_status list_places(const char *name, char **place, int *count)
{
    const char *own = variable("EVENKEEL_DATA"), *shared = variable("XDG_DATA_HOME"),
               *home = variable("HOME");
    EK_TRY(add_place(place, count, own, "", name));
    EK_TRY(add_place(place, count, own, "", ""));
    EK_TRY(add_place(place, count, shared ? shared : home, shared ? "/evenkeel" : "/.local/share/evenkeel",
                     name));
    EK_TRY(add_place(place, count, "/usr/local/share/evenkeel", "", name));
    return add_place(place, count, "/usr/share/datasets", "", name);
}

static ek_status not_found(const struct named *set, char *const *place, int count)
{
    ek_text looked = {0};
    for (int i = 0; i < count; i++) ek_text_add(&looked, "%s%s", i ? ", " : "", place[i]);
    ek_status status = ek_text_status(&looked);
    if (status == EK_OK)
        status = ek_fail(EK_E_NOT_FOUND, "%s is not on this machine: %s (looked in %s)", set->name,
                         set->remedy, looked.data);
    ek_text_free(&looked);
    return status;
}

ek_status ek_named_set_open(const char *name, ek_split split, ek_dataset **out)
{
    const struct named *set = find_named(name);
    ek_status status = EK_OK;
    char *place[PLACES] = {NULL};
    int count = 0;
    ek_dataset *d = NULL;
    EK_GO(list_places(name, place, &count));
    for (int i = 0; i < count; i++) {
        bool has;
        EK_GO(ek_folder_has(place[i], split, &has));
        if (!has) continue;
        EK_GO(ek_folder_open(place[i], split, &d));
        EK_GO(ek_dataset_name_classes(d, set->class_name, CLASSES, place[i]));
        *out = d;
        d = NULL;
        goto done;
    }
    status = not_found(set, place, count);
done:
    ek_dataset_destroy(d);
    for (int i = 0; i < count; i++) ek_free(place[i]);
    return status;
}
