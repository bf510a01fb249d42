/* safetensors files: read and written again, as models with a net text, and as the bare weights of a given net, our own or
 * another framework's. */
#include "fuzz.h"

#include "core/memory.h"
#include "formats/safetensors.h"

#include <string.h>

const fuzz_mutator fuzz_mutate = fuzz_mutate_safetensors;

static ek_net *net;
static float *real;
static int64_t *whole;
enum { MOST = 1 << 14 };


void fuzz_start(void)
{
    FUZZ_OK(ek_net_create(fuzz_context(), "input 1x3x3\nconv 2 kernel=2\nbatchnorm\nrelu\nflatten\nlinear 2\n", NULL, &net));
    FUZZ_OK(EK_NEW(real, MOST));
    FUZZ_OK(EK_NEW(whole, MOST));
}

/* What was read can be written, save for types that are not, and reads as it was. */
static void write_again(const ek_safetensors *file)
{
    ek_st_writer writer = {0};
    ek_safetensors again;
    for (int i = 0; i < file->count; i++) {
        const ek_st_tensor *t = &file->tensor[i];
        if (t->dtype != EK_NUMBER_F32 && t->dtype != EK_NUMBER_F64 && t->dtype != EK_NUMBER_I64) goto done;
        FUZZ_OK(ek_st_add(&writer, t->name, t->dtype, t->rank, t->dim, t->bytes));
    }
    for (int i = 0; i < file->metadata_count; i++)
        FUZZ_OK(ek_st_add_metadata(&writer, file->metadata[i].key, file->metadata[i].value));
    const char *path = fuzz_path("again.safetensors");
    FUZZ_OK(ek_st_write(&writer, path));
    FUZZ_OK(ek_safetensors_read(path, &again));
    fuzz_require(again.count == file->count && again.metadata_count == file->metadata_count, "as much is read as was written");
    for (int i = 0; i < file->count; i++) {
        const ek_st_tensor *t = &file->tensor[i], *u = ek_safetensors_find(&again, t->name);
        size_t bytes = (size_t)t->count * ek_number_size(t->dtype);
        fuzz_require(u && u->count == t->count && (!bytes || !memcmp(t->bytes, u->bytes, bytes)), "a tensor is as it was");
    }
    ek_safetensors_free(&again);
done:
    ek_st_writer_free(&writer);
}

static void look(const ek_safetensors *file)
{
    for (int i = 0; i < file->count; i++) {
        if (file->tensor[i].count > MOST) continue;
        (void)fuzz_took(ek_st_to_float(&file->tensor[i], real));
        (void)fuzz_took(ek_st_to_int64(&file->tensor[i], whole));
    }
    write_again(file);
}

static void as_model(const char *path)
{
    ek_net *opened;
    const char *saved = fuzz_path("saved.safetensors");
    if (!fuzz_built(ek_net_open_sick(fuzz_context(), path, &opened))) return;
    fuzz_use_net(opened);
    bool sound = fuzz_built(ek_net_save(opened, saved));
    ek_net_destroy(opened);
    if (sound && fuzz_built(ek_net_open(fuzz_context(), saved, &opened))) ek_net_destroy(opened);
}

void fuzz_one(const unsigned char *data, size_t size)
{
    const char *path = fuzz_file("input.safetensors", data, size);
    ek_safetensors file;
    if (!fuzz_took(ek_safetensors_read(path, &file))) return;
    bool model = ek_safetensors_metadata(&file, "evenkeel.net");
    look(&file);
    ek_safetensors_free(&file);
    if (model) {
        as_model(path);
        return;
    }
    (void)fuzz_took(ek_net_load_weights(net, path));
    ek_net *taken;
    ek_framework from = EK_FROM_PYTORCH + size % 4;
    if (fuzz_took(ek_net_take_foreign(net, path, from, NULL, &taken))) ek_net_destroy(taken);
}
