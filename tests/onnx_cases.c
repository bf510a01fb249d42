/* Cases as ONNX's own backend tests have them: folders with model.onnx, test_data_set_0/input_K.pb and output_0.pb. Each is
 * imported, its inputs but the first bound as constants, run, and compared. One line a case:
 *
 *   pass NAME ERROR     the largest difference from output_0, as a share of the larger of 1 and the value
 *   skip NAME: WHY      it cannot be imported
 *   FAIL NAME: WHY
 *
 * onnx_cases DIR...: the folders, or folders of folders. */
#include "core/file.h"
#include "core/memory.h"
#include "graph/net.h"
#include "onnx/model.h"
#include "onnx/onnx.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_INPUTS = 16 };
static const size_t MAX_PB = (size_t)1 << 28;

typedef struct array {
    unsigned char *file;
    size_t size;
    onnx_tensor tensor;
    float *value;
} array;

static ek_status read_array(onnx_memory *memory, const char *folder, const char *kind, int number, array *out)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/test_data_set_0/%s_%d.pb", folder, kind, number);
    *out = (array){0};
    EK_TRY(ek_file_read(path, MAX_PB, &out->file, &out->size));
    return ek_onnx_tensor_parse(memory, ek_wire_begin(out->file, out->size), &out->tensor);
}

static ek_status to_floats(array *a)
{
    onnx_model none = {.path = ""};
    if (!ek_onnx_is_real(a->tensor.type))
        return ek_fail(EK_E_UNSUPPORTED, "its numbers are %s", ek_onnx_type_name(a->tensor.type));
    EK_TRY(ek_onnx_tensor_check(&none, &a->tensor));
    EK_TRY(EK_NEW(a->value, (size_t)a->tensor.count));
    return ek_onnx_tensor_reals(&none, &a->tensor, a->value);
}

/* How many samples x holds for this net: its first dimension, or 1 where a sample is the whole. */
static int64_t samples_of(const ek_net *net, const onnx_tensor *x)
{
    ek_shape shape = ek_net_input_shape(net);
    return shape.rank && ek_shape_count(shape) ? x->count / ek_shape_count(shape) : 0;
}

static ek_status run(ek_net *net, const array *x, const array *wanted, double *error)
{
    int64_t n = samples_of(net, &x->tensor), count = n * ek_shape_count(ek_net_output_shape(net));
    if (n < 1 || n * ek_shape_count(ek_net_input_shape(net)) != x->tensor.count)
        return ek_fail(EK_E_SHAPE, "the input has %lld numbers", (long long)x->tensor.count);
    if (count != wanted->tensor.count)
        return ek_fail(EK_E_SHAPE, "the output has %lld numbers, not %lld", (long long)count,
                       (long long)wanted->tensor.count);
    float *y;
    EK_TRY(EK_NEW(y, (size_t)count));
    ek_status status = ek_net_forward(net, EK_MODE_INFERENCE, n, x->value, y);
    for (int64_t i = 0; i < count && status == EK_OK; i++) {
        double size = fabs((double)wanted->value[i]), off = fabs((double)y[i] - (double)wanted->value[i]);
        if (size > 1) off /= size;
        if (!(off <= *error)) *error = off;
    }
    ek_free(y);
    return status;
}

/* What was expected in training mode was drawn at random. */
static ek_status check_drawn(const ek_net *net)
{
    for (int i = 0; i < ek_net_note_count(net); i++) {
        if (!strncmp(ek_net_note(net, i), "Dropout", 7))
            return ek_fail(EK_E_UNSUPPORTED, "its output was drawn at random");
    }
    return EK_OK;
}

static void one_case(ek_context *context, const char *folder)
{
    const char *name = strrchr(folder, '/') + 1;
    char path[4096];
    snprintf(path, sizeof path, "%s/model.onnx", folder);
    onnx_memory memory = {0};
    onnx_model model = {0};
    array in[MAX_INPUTS] = {0}, out = {0};
    ek_onnx_bound bound[MAX_INPUTS];
    ek_net *net = NULL;
    double error = 0;
    bool imported = false;
    ek_onnx_options options = ek_onnx_options_default();
    ek_status status = EK_OK;
    EK_GO(ek_onnx_model_read(path, &model));
    if (model.output_count < 1 || model.output[0].value < 0 || model.input_count > MAX_INPUTS) {
        status = ek_fail(EK_E_UNSUPPORTED, "it has no output, or too many inputs");
        goto done;
    }
    options.output = model.value[model.output[0].value].name;
    for (int i = 0; i < model.input_count; i++) {
        EK_GO(read_array(&memory, folder, "input", i, &in[i]));
        bound[i] = (ek_onnx_bound){
            .name = model.value[model.input[i].value].name, .data = in[i].file, .size = in[i].size};
    }
    EK_GO(ek_onnx_open_bound(context, path, &options, model.input_count > 0 ? model.input_count - 1 : 0,
                             bound + 1, &net));
    EK_GO(read_array(&memory, folder, "output", 0, &out));
    EK_GO(to_floats(&out));
    EK_GO(to_floats(&in[0]));
    EK_GO(check_drawn(net));
    imported = true;
    EK_GO(run(net, &in[0], &out, &error));
done:
    if (status != EK_OK && !imported) {
        const char *why = strstr(ek_error(), "model.onnx: ");
        printf("skip %s: %s\n", name, why ? why + strlen("model.onnx: ") : ek_error());
    } else if (status != EK_OK) {
        printf("FAIL %s: %s\n", name, ek_error());
    } else if (!(error <= (out.tensor.type == ONNX_FLOAT16 ? 1e-3 : 1e-5))) {
        printf("FAIL %s: it is off by %g\n", name, error);
    } else {
        printf("pass %s %.1e\n", name, error);
    }
    ek_net_destroy(net);
    for (int i = 0; i < MAX_INPUTS; i++) ek_free(in[i].file), ek_free(in[i].value);
    ek_free(out.file);
    ek_free(out.value);
    ek_onnx_release(&memory);
    ek_onnx_model_free(&model);
}

static bool is_file(const char *folder, const char *name)
{
    char path[4096];
    struct stat about;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &about) == 0;
}

int main(int argc, char **argv)
{
    ek_context *context;
    ek_context_options options = ek_context_options_default();
    options.threads = 1;
    if (ek_context_create(&options, &context) != EK_OK) return 1;
    for (int i = 1; i < argc; i++) {
        struct dirent **entry;
        if (is_file(argv[i], "model.onnx")) {
            one_case(context, argv[i]);
            continue;
        }
        int count = scandir(argv[i], &entry, NULL, alphasort);
        for (int k = 0; k < count; k++) {
            char folder[2048];
            snprintf(folder, sizeof folder, "%s/%s", argv[i], entry[k]->d_name);
            if (entry[k]->d_name[0] != '.' && is_file(folder, "model.onnx")) one_case(context, folder);
            free(entry[k]);
        }
        if (count >= 0) free(entry);
    }
    ek_context_destroy(context);
    return 0;
}
