/* Networks from files, and back: the public functions. */
#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"
#include "formats/model_file.h"
#include "onnx/onnx.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_TEXT = 1 << 20 };

bool ek_is_model(const char *path)
{
    if (!path) return false;
    if (ek_ends_with(path, ".safetensors") || ek_ends_with(path, ".onnx")) return true;
    struct stat about;
    if (stat(path, &about) != 0 || !S_ISREG(about.st_mode)) return false;
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    unsigned char head[8];
    bool all = fread(head, 1, sizeof head, file) == sizeof head;
    fclose(file);
    return all && (memchr(head, 0, sizeof head) || ek_onnx_is_model(head, sizeof head));
}

ek_status ek_model_is_onnx(const char *path, bool *onnx)
{
    unsigned char head[8];
    size_t got;
    *onnx = ek_ends_with(path, ".onnx");
    if (*onnx || ek_ends_with(path, ".safetensors")) return EK_OK;
    EK_TRY(ek_file_begin(path, sizeof head, head, &got));
    *onnx = ek_onnx_is_model(head, got);
    return EK_OK;
}

/* sick: with values that no sound model has. */
static ek_status open_onnx(ek_context *context, const char *path, const ek_onnx_options *options, bool sick, ek_net **out)
{
    ek_net *net;
    EK_TRY(ek_onnx_open_with(context, path, options, &net));
    ek_status status = sick ? EK_OK : ek_model_check(net, path);
    if (status == EK_OK)
        *out = net;
    else
        ek_net_destroy(net);
    return status;
}

static ek_status open_model(ek_context *context, const char *path, bool sick, ek_net **out)
{
    bool onnx;
    EK_TRY(ek_model_is_onnx(path, &onnx));
    if (onnx) return open_onnx(context, path, NULL, sick, out);
    ek_safetensors file;
    EK_TRY(ek_safetensors_read(path, &file));
    ek_net *net = NULL;
    ek_status status = EK_OK;
    EK_GO(ek_model_net(context, &file, path, &net));
    status = ek_model_take(net, &file, path, sick);
    if (status == EK_E_NUMERIC) ek_fail(status, EK_SICK_ADVICE, ek_error(), path);
done:
    ek_safetensors_free(&file);
    if (status == EK_OK)
        *out = net;
    else
        ek_net_destroy(net);
    return status;
}

static ek_status open_text(ek_context *context, const char *path, ek_net **out)
{
    unsigned char *text;
    size_t size;
    EK_TRY(ek_file_read(path, MAX_TEXT, &text, &size));
    ek_status status = memchr(text, 0, size)
                           ? ek_fail(EK_E_FORMAT, "%s is not a net text: it holds zero bytes", path)
                           : ek_net_create(context, (const char *)text, path, out);
    ek_free(text);
    return status;
}

/* No such name and no such file: says what there is. */
static ek_status unknown(const char *name)
{
    ek_text list = {0};
    const char *names[64];
    int count = 0;
    for (; count < 64 && ek_shipped_net_name(count); count++) {
        names[count] = ek_shipped_net_name(count);
        ek_text_add(&list, "%s%s", count ? ", " : "", names[count]);
    }
    const char *near = ek_nearest(name, names, count);
    ek_status status =
        near ? ek_fail(EK_E_NOT_FOUND, "there is no net or file '%s'; did you mean '%s'?", name, near)
             : ek_fail(EK_E_NOT_FOUND, "there is no net or file '%s'; the shipped nets are %s", name,
                       list.data ? list.data : "");
    ek_text_free(&list);
    return status;
}

static ek_status open_any(ek_context *context, const char *name_or_path, bool sick, ek_net **out)
{
    if (!context || !name_or_path || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_net_open needs a context, a name and a place for the net");
    int shipped = ek_shipped_net_find(name_or_path);
    if (shipped >= 0) return ek_net_create(context, ek_shipped_net_text(shipped), name_or_path, out);
    if (access(name_or_path, F_OK) != 0) return unknown(name_or_path);
    return ek_is_model(name_or_path) ? open_model(context, name_or_path, sick, out)
                                     : open_text(context, name_or_path, out);
}

ek_status ek_net_open(ek_context *context, const char *name_or_path, ek_net **out)
{
    return open_any(context, name_or_path, false, out);
}

ek_status ek_net_open_sick(ek_context *context, const char *name_or_path, ek_net **out)
{
    return open_any(context, name_or_path, true, out);
}

ek_status ek_net_open_onnx(ek_context *context, const char *path, const ek_onnx_options *options, ek_net **out)
{
    if (!context || !path || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_net_open_onnx needs a context, a path and a place for the net");
    if (options && (options->input.rank < 0 || options->input.rank > EK_MAX_VALUE_RANK))
        return ek_fail(EK_E_ARGUMENT, "a sample has 1 to %d dimensions, not %d", EK_MAX_VALUE_RANK, options->input.rank);
    if (access(path, F_OK) != 0) return ek_fail(EK_E_NOT_FOUND, "there is no file '%s'", path);
    return open_onnx(context, path, options, false, out);
}

ek_status ek_net_load_weights(ek_net *net, const char *path)
{
    if (!net || !path) return ek_fail(EK_E_ARGUMENT, "ek_net_load_weights needs a net and a path");
    bool onnx;
    EK_TRY(ek_model_is_onnx(path, &onnx));
    if (onnx)
        return ek_fail(EK_E_FORMAT, "%s is an ONNX model, which brings a net of its own: use it as the net, as in evenkeel train %s",
                       path, path);
    ek_safetensors file;
    EK_TRY(ek_safetensors_read(path, &file));
    ek_status status = ek_model_take(net, &file, path, false);
    if (status == EK_OK) status = ek_net_set_metadata(net, EK_RECALIBRATED_KEY, NULL);
    ek_safetensors_free(&file);
    return status;
}

ek_status ek_net_save(const ek_net *net, const char *path)
{
    if (!net || !path) return ek_fail(EK_E_ARGUMENT, "ek_net_save needs a net and a path");
    ek_st_writer writer = {0};
    ek_status status = EK_OK;
    EK_GO(ek_model_add(net, &writer));
    EK_GO(ek_st_write(&writer, path));
done:
    ek_st_writer_free(&writer);
    return status;
}
