/* Writes what the fuzzers begin with: small files of each kind, FOLDER/READER/NAME.
 *
 *   fuzz_seeds FOLDER */
#include "checkpoint_run.h"
#include "formats/arrays.h"
#include "formats/safetensors.h"
#include "onnx_making.h"

#include <sys/stat.h>
#include <zlib.h>
#ifdef EK_HAVE_JPEG
#include <jpeglib.h>
#endif

static const char *root;
static ek_context *context;

static void fail(const char *what)
{
    fprintf(stderr, "fuzz_seeds: %s: %s\n", what, ek_error());
    exit(1);
}

#define DONE(expression)                               \
    do {                                               \
        if ((expression) != EK_OK) fail(#expression);  \
    } while (0)

/* FOLDER/READER/NAME, for one call more. */
static const char *path_of(const char *reader, const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", root, reader);
    (void)mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s/%s", root, reader, name);
    return path;
}

static void put(const char *reader, const char *name, const void *data, size_t size)
{
    FILE *file = fopen(path_of(reader, name), "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0) fail(name);
}

static void put_text(const char *reader, const char *name, const char *text) { put(reader, name, text, strlen(text)); }

/* --- packing */

enum { ROOM = 1 << 16 };

/* wbits as zlib has it: 15 + 16 for gzip. */
static size_t pack(const void *data, size_t size, int wbits, int level, unsigned char out[ROOM])
{
    z_stream z = {0};
    if (deflateInit2(&z, level, Z_DEFLATED, wbits, 8, Z_DEFAULT_STRATEGY) != Z_OK) fail("deflateInit2");
    z.next_in = (unsigned char *)data;
    z.avail_in = (uInt)size;
    z.next_out = out;
    z.avail_out = ROOM;
    if (deflate(&z, Z_FINISH) != Z_STREAM_END) fail("deflate");
    deflateEnd(&z);
    return z.total_out;
}

static void put_gz(const char *reader, const char *name, const void *data, size_t size, int level)
{
    unsigned char out[ROOM];
    put(reader, name, out, pack(data, size, 15 + 16, level, out));
}

/* --- arrays */

static void write_idx(void)
{
    static const unsigned char types[] = {0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E}, sizes[] = {1, 1, 2, 4, 4, 8};
    static const unsigned char dims[5] = {2, 2, 1, 2, 3};
    for (int t = 0; t < 6; t++) {
        for (int rank = 1; rank <= 5; rank += t == 0 ? 1 : 2) {
            unsigned char data[512] = {0, 0, types[t], (unsigned char)rank};
            size_t size = 4 + 4 * (size_t)rank, numbers = sizes[t];
            for (int i = 0; i < rank; i++) {
                data[4 + 4 * i + 3] = dims[i];
                numbers *= dims[i];
            }
            for (size_t i = 0; i < numbers; i++) data[size + i] = (unsigned char)(i % sizes[t] ? 0 : types[t] > 0x0C ? 0x40 : i % 3);
            char name[32];
            snprintf(name, sizeof name, "type%02x-rank%d", types[t], rank);
            put("idx", name, data, size + numbers);
            snprintf(name, sizeof name, "type%02x-rank%d.gz", types[t], rank);
            if (rank == 3) put_gz("idx", name, data, size + numbers, 9);
        }
    }
}

static void put_npy(const char *name, int version, const char *dict, size_t bytes)
{
    unsigned char data[1024] = {0x93, 'N', 'U', 'M', 'P', 'Y', (unsigned char)version, 0};
    size_t start = version == 1 ? 10 : 12, length = strlen(dict);
    data[8] = (unsigned char)length;
    memcpy(data + start, dict, length);
    for (size_t i = 0; i < bytes; i++) data[start + length + i] = (unsigned char)(i % 4 == 0);
    put("npy", name, data, start + length + bytes);
}

static void write_npy(void)
{
    const float values[] = {1, 2, 3, 4, 5, 6};
    DONE(ek_npy_write(path_of("npy", "written"), 2, (const int64_t[]){3, 2}, values));
    put_npy("u1", 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 2), }\n", 6);
    put_npy("labels", 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }\n", 24);
    put_npy("lengths", 2, "{'descr': '>i4', 'fortran_order': False, 'shape': (3, 1)}", 12);
    put_npy("fortran", 3, "{\"descr\": \"<f8\", 'fortran_order': True, 'shape': (3, 1, 2)}\n", 48);
    put_npy("half", 1, "{'shape': (3, 2, 1, 2), 'fortran_order': True, 'descr': '=f2'}\n", 24);
    put_npy("bool", 1, "{'descr': '|b1', 'fortran_order': False, 'shape': (3, 2, 2)}\n", 12);
    put_npy("scalar", 1, "{'descr': '<u2', 'fortran_order': False, 'shape': ()}\n", 2);
    put_npy("empty", 1, "{'descr': '<u4', 'fortran_order': False, 'shape': (3, 0)}\n", 0);
    put_npy("object", 1, "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}\n", 24);
}

static const char table[] = "a,b,class\n1,2.5,0\n-3e-2,4,1\n# so\n\n5,6,1\n";

static void write_csv(void)
{
    put_text("csv", "header", table);
    put_text("csv", "names", "1;2;setosa\n3;4;\"versi color\"\n5;6;setosa\n");
    put_text("csv", "quotes", "\"x\",\"y, z\",\"k\"\n\"1\",\"2\",\"A\"\r\n3,4,B\r\n");
    put_text("csv", "blanks", "  1   2 0\n3\t4 1\n");
    put_text("csv", "tabs", "\xef\xbb\xbf" "1\t2\t0\n3\t\t1");
    put_text("csv", "odd", "1,inf,nan\n1e400,,0x1p3\n");
    put_gz("csv", "packed", table, strlen(table), 6);
}

static void write_gz(void)
{
    char text[4096] = "";
    for (size_t used = 0; used < sizeof text - 64;) used += (size_t)snprintf(text + used, sizeof text - used, "%s", "1,2,0\n3,4,1\n");
    put_gz("gz", "table", table, strlen(table), 9);
    put_gz("gz", "stored", table, strlen(table), 0);
    put_gz("gz", "long", text, strlen(text), 9);
    put_gz("gz", "nothing", "", 0, 6);
    put_text("gz", "plain", table);
    unsigned char two[ROOM];
    size_t size = pack(table, strlen(table), 15 + 16, 6, two);
    memcpy(two + size, two, size);
    put("gz", "twice", two, 2 * size);
}

/* --- images */

typedef struct bytes {
    unsigned char data[4096];
    size_t size;
} bytes;

static void add_big(bytes *b, uint32_t number)
{
    for (int shift = 24; shift >= 0; shift -= 8) b->data[b->size++] = (unsigned char)(number >> shift);
}

static void add_chunk(bytes *b, const char *name, const void *data, size_t size)
{
    add_big(b, (uint32_t)size);
    unsigned char *start = b->data + b->size;
    memcpy(start, name, 4);
    if (size) memcpy(start + 4, data, size);
    b->size += 4 + size;
    add_big(b, (uint32_t)crc32(0, start, (uInt)(4 + size)));
}

/* 5 by 3 pixels. transparent: bytes of a tRNS chunk. */
static void put_png(const char *name, int depth, int colour, int channels, int interlaced, int transparent)
{
    enum { W = 5, H = 3 };
    bytes b = {.data = "\x89PNG\r\n\x1a\n", .size = 8};
    unsigned char header[13] = {0, 0, 0, W, 0, 0, 0, H, (unsigned char)depth, (unsigned char)colour, 0, 0,
                                (unsigned char)interlaced};
    add_chunk(&b, "IHDR", header, sizeof header);
    static const unsigned char gamma[] = {0, 0, 0xb1, 0x8f}, zeros[1024], palette[] = {1, 2, 3, 200, 100, 50, 255, 0, 9};
    add_chunk(&b, "gAMA", gamma, sizeof gamma);
    if (colour == 3) add_chunk(&b, "PLTE", palette, sizeof palette);
    if (transparent) add_chunk(&b, "tRNS", zeros, (size_t)transparent);
    /* Rows with the filter in front; of an interlaced image there are more, and all are of the first kind. */
    size_t row = 1 + ((size_t)(W * channels * depth) + 7) / 8;
    unsigned char rows[1024] = {0}, packed[ROOM];
    for (size_t i = 0; i < H * row; i++) rows[i] = (unsigned char)(i % row ? (colour == 3 ? 0 : i * 37) : i / row % 5);
    size_t size = pack(interlaced ? zeros : rows, interlaced ? 200 : H * row, 15, 9, packed);
    add_chunk(&b, "IDAT", packed, size);
    add_chunk(&b, "IEND", NULL, 0);
    put("png", name, b.data, b.size);
}

static void write_png(void)
{
    put_png("grey1", 1, 0, 1, 0, 0);
    put_png("grey8", 8, 0, 1, 0, 2);
    put_png("grey16", 16, 0, 1, 0, 0);
    put_png("rgb8", 8, 2, 3, 0, 6);
    put_png("rgb16", 16, 2, 3, 0, 0);
    put_png("palette2", 2, 3, 1, 0, 0);
    put_png("palette8", 8, 3, 1, 1, 3);
    put_png("greyalpha8", 8, 4, 2, 1, 0);
    put_png("rgba8", 8, 6, 4, 0, 0);
    put_png("rgba16", 16, 6, 4, 1, 0);
}

#ifdef EK_HAVE_JPEG

/* Of 17 by 9 pixels. */
static void put_jpeg(const char *name, int channels, bool progressive, int restart, bool arithmetic)
{
    enum { W = 17, H = 9 };
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL, row[3 * W];
    unsigned long size = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &data, &size);
    jpeg.image_width = W;
    jpeg.image_height = H;
    jpeg.input_components = channels;
    jpeg.in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 50, TRUE);
    if (progressive) jpeg_simple_progression(&jpeg);
    jpeg.restart_interval = (unsigned)restart;
    jpeg.arith_code = arithmetic;
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < H; y++) {
        JSAMPROW at = row;
        for (int i = 0; i < W * channels; i++) row[i] = (unsigned char)(i * 11 + y * y * 7);
        jpeg_write_scanlines(&jpeg, &at, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    put("jpeg", name, data, size);
    free(data);
}

static void write_jpeg(void)
{
    put_jpeg("grey", 1, false, 0, false);
    put_jpeg("colour", 3, false, 0, false);
    put_jpeg("restart", 3, false, 1, false);
    put_jpeg("progressive", 3, true, 2, false);
    put_jpeg("arithmetic", 1, false, 0, true);
}

#else
static void write_jpeg(void) { put_text("jpeg", "none", "\xff\xd8\xff"); }
#endif

/* --- nets */

static const struct {
    const char *name, *text;
} nets[] = {
    {"lenet", "input 1x8x8 mean=0.5 std=0.25\nnet.0: conv 2 kernel=3\nnet.1: batchnorm\nsigmoid\navgpool 2\nflatten\nlinear 3\n"},
    {"residual", "input 2x4x4\nstart: relu\nconv 2 kernel=3 padding=1 bias=false\nbatchnorm eps=0.001 momentum=none\nadd start\nrelu\n"
                 "globalavgpool\nflatten\nlinear 2 bias=false\nsoftmax\n"},
    {"squeeze", "input 4x3x3\nmap: silu\nglobalavgpool\nconv 2 kernel=1\nrelu\nconv 4 kernel=1\nhardsigmoid\nmul map\nmaxpool 2 ceil=true\n"},
    {"sequence", "input 2x8\nconv1d 4 kernel=3 stride=2 padding=1\ngroupnorm 2\nelu 0.5\nconvtranspose1d 2 kernel=2\ninstancenorm\n"
                 "maxpool 2\nflatten\nlinear 2\n"},
    {"shapes", "input 2x3x4\npermute 1,2,0\nreshape 6x4\na: layernorm\nrmsnorm\nconcat a axis=1\nflatten\nprelu\naffine 1\nclip min=-1 max=6\n"},
    {"joins", "input 6 # features\na: linear 4\nb: tanh\nsub a\ndiv b\nhardswish\nleakyrelu 0.1\nd: dropout 0.3\nlinear 4 from=b\n"
              "batchnorm ghost=2\nadd d\nmul a\n"},
    {"up", "input 2x3x3\nconvtranspose 2 kernel=3x2 stride=2 padding=1 output_padding=1 groups=2\nbatchnorm track=false scale=false\n"
           "conv 2 kernel=3 dilation=2 padding=1 padding_end=0x1\nbatchnorm r_max=3 d_max=5 renorm_steps=100\n"},
};
enum { NETS = sizeof nets / sizeof *nets };

static void write_nets(void)
{
    put_text("net_text", "wrong", "input 1x28x28\nconv 6 kernl=5\n");
    for (int i = 0; i < NETS; i++) {
        ek_net *net;
        put_text("net_text", nets[i].name, nets[i].text);
        DONE(ek_net_create(context, nets[i].text, nets[i].name, &net));
        const char *const classes[] = {"a", "b"};
        if (i == 0) DONE(ek_net_set_classes(net, classes, 2));
        DONE(ek_net_save(net, path_of("safetensors", nets[i].name)));
        DONE(ek_net_save_onnx(net, path_of("onnx", nets[i].name)));
        ek_net_destroy(net);
    }
}

/* --- bare weights of the net of fuzz_safetensors.c, under the names of several frameworks */

typedef struct weight {
    const char *name;
    int rank;
    int64_t dim[4];
} weight;

static void write_weights(const char *name, const weight *list, int count)
{
    static const float ones[64] = {0.5f, 1, 2};
    ek_st_writer writer = {0};
    for (int i = 0; i < count; i++) DONE(ek_st_add(&writer, list[i].name, EK_NUMBER_F32, list[i].rank, list[i].dim, ones));
    DONE(ek_st_add_metadata(&writer, "format", "pt"));
    DONE(ek_st_write(&writer, path_of("safetensors", name)));
    ek_st_writer_free(&writer);
}

#define WRITE_WEIGHTS(name, list) write_weights(name, list, sizeof list / sizeof *list)

static void write_safetensors(void)
{
    static const weight torch[] = {
        {"conv1.weight", 4, {2, 1, 2, 2}}, {"conv1.bias", 1, {2}}, {"batchnorm1.weight", 1, {2}}, {"batchnorm1.bias", 1, {2}},
        {"batchnorm1.running_mean", 1, {2}}, {"batchnorm1.running_var", 1, {2}}, {"linear1.weight", 2, {2, 8}}, {"linear1.bias", 1, {2}}};
    static const weight keras[] = {
        {"model/conv2d/kernel:0", 4, {2, 2, 1, 2}}, {"model/conv2d/bias:0", 1, {2}}, {"model/bn/gamma:0", 1, {2}}, {"model/bn/beta:0", 1, {2}},
        {"model/bn/moving_mean:0", 1, {2}}, {"model/bn/moving_variance:0", 1, {2}}, {"model/dense/kernel:0", 2, {8, 2}}, {"model/dense/bias:0", 1, {2}}};
    static const weight flax[] = {
        {"params.Conv_0.kernel", 4, {2, 2, 1, 2}}, {"params.Conv_0.bias", 1, {2}}, {"params.BatchNorm_0.scale", 1, {2}}, {"params.BatchNorm_0.bias", 1, {2}},
        {"batch_stats.BatchNorm_0.mean", 1, {2}}, {"batch_stats.BatchNorm_0.var", 1, {2}}, {"params.Dense_0.kernel", 2, {8, 2}}, {"params.Dense_0.bias", 1, {2}}};
    WRITE_WEIGHTS("torch", torch);
    WRITE_WEIGHTS("keras", keras);
    WRITE_WEIGHTS("flax", flax);
    static const char *const others[] = {
        "{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[4,6]}}",
        "{\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},\"u\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[8,8]}}",
        "{\"x\":{\"dtype\":\"BOOL\",\"shape\":[1,2],\"data_offsets\":[0,2]},\"__metadata__\":{\"format\":\"pt\",\"k\":\"\\u00e9\"}}  ",
        "{\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]},\"s\":{\"dtype\":\"I16\",\"shape\":[1],\"data_offsets\":[8,10]}}",
    };
    static const size_t sizes[] = {6, 8, 2, 10};
    for (int i = 0; i < 4; i++) {
        unsigned char data[512] = {0};
        uint64_t length = strlen(others[i]);
        char name[16];
        memcpy(data, &length, 8);
        memcpy(data + 8, others[i], length);
        snprintf(name, sizeof name, "types%d", i);
        put("safetensors", name, data, 8 + length + sizes[i]);
    }
}

static void write_checkpoint(void)
{
    ek_train_options options;
    ek_run run;
    DONE(start_run(context, &options, &run));
    DONE(ek_checkpoint_write(&run, path_of("checkpoint", "start")));
    run.progress = (ek_progress){.epoch = 2, .step = 3, .skipped = 1, .samples = 12, .correct = 7, .loss_sum = 8.5};
    DONE(ek_checkpoint_write(&run, path_of("checkpoint", "middle")));
    ek_net *net = run.trainer->net;
    ek_trainer_destroy(run.trainer);
    ek_net_destroy(net);
}

/* --- ONNX, what other exporters write */

static void put_onnx(const char *name, int opset)
{
    ek_protobuf m = {0};
    make_model(opset, &m);
    DONE(ek_protobuf_status(&m));
    put("onnx", name, m.data, m.length);
    ek_protobuf_free(&m);
}

static void write_onnx(void)
{
    begin();
    input("x", "1,2,4,4");
    output("y");
    floats("w", "2,2,1,1", "1,2,3,4");
    floats("s", "2", "1,2");
    floats("v", "2", "1,1");
    wholes("shape", "2", "0,-1");
    node("Conv", "x w", "c", "auto_pad=sSAME_UPPER kernel_shape=l1,1 strides=l2,2");
    node("BatchNormalization", "c s s s v", "b", "epsilon=f0.001 momentum=f0.9 spatial=i1");
    node("Relu", "b", "r", "");
    node("AveragePool", "r", "p", "kernel_shape=l2,2 pads=l0,0,0,0 count_include_pad=i1");
    node("Reshape", "p shape", "f", "");
    node("Softmax", "f", "y", "axis=i1");
    put_onnx("opset7", 7);

    begin();
    input("x", "N,2,3,3");
    output("y");
    wholes("zero", "1", "0");
    wholes("one", "1", "-1");
    node("Shape", "x", "a", "");
    node("Gather", "a zero", "g", "axis=i0");
    node("Constant", "-", "k", "value=t7:1:-1");
    node("Concat", "g k", "to", "axis=i0");
    node("Clip", "x", "c", "min=f0 max=f6");
    node("Reshape", "c to", "f", "");
    node("Gemm", "f w b", "h", "transB=i1 alpha=f0.5");
    floats("w", "2,18", "1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9");
    floats("b", "2", "1,2");
    node("Transpose", "h", "t", "perm=l0,1");
    node("Unsqueeze", "t one", "u", "");
    node("Squeeze", "u one", "y", "");
    put_onnx("shapes", 13);

    begin();
    input("x", "1,3,8");
    output("y");
    floats("w", "2,3,3", "1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7,8,9");
    floats("two", "1", "2");
    floats("eps", "1", "0.001");
    node("Conv", "x w", "c", "pads=l1,1 dilations=l1 group=i1");
    node("ReduceMean", "c", "m", "axes=l1,2 keepdims=i1");
    node("Sub", "c m", "d", "");
    node("Pow", "d two", "p", "");
    node("ReduceMean", "p", "v", "axes=l1,2 keepdims=i1");
    node("Add", "v eps", "e", "");
    node("Sqrt", "e", "q", "");
    node("Div", "d q", "n", "");
    node("HardSigmoid", "n", "s", "alpha=f0.2");
    node("Mul", "n s", "z", "");
    node("GlobalAveragePool", "z", "y", "");
    put_onnx("written_out", 11);

    begin();
    input("x", "1,2,2,2");
    output("y");
    floats("scales", "4", "1,1,2,2");
    floats("roi", "0", "");
    wholes("starts", "1", "0");
    wholes("ends", "1", "1");
    wholes("axes", "1", "1");
    node("Resize", "x roi scales", "r", "mode=snearest coordinate_transformation_mode=sasymmetric nearest_mode=sfloor");
    node("Slice", "r starts ends axes", "l", "");
    node("Pad", "l pads", "p", "");
    wholes("pads", "8", "0,0,1,1,0,0,1,1");
    node("ConvTranspose", "p w", "t", "strides=l2,2 output_padding=l1,1");
    floats("w", "1,2,2,2", "1,2,3,4,5,6,7,8");
    node("LeakyRelu", "t", "k", "alpha=f0.1");
    node("Dropout", "k", "o", "");
    node("Flatten", "o", "y", "axis=i1");
    put_onnx("resize", 13);

    begin();
    input("x", "N,2");
    output("y");
    size_t start = ek_protobuf_begin(&graph, 5);
    ek_protobuf_int(&graph, 1, 2);
    ek_protobuf_int(&graph, 2, FLOAT);
    ek_protobuf_text(&graph, 8, "w");
    ek_protobuf_int(&graph, 14, 1);
    static const char *const entries[][2] = {{"location", "weights.bin"}, {"offset", "4"}, {"length", "8"}};
    for (int i = 0; i < 3; i++) {
        size_t entry = ek_protobuf_begin(&graph, 13);
        ek_protobuf_text(&graph, 1, entries[i][0]);
        ek_protobuf_text(&graph, 2, entries[i][1]);
        ek_protobuf_end(&graph, entry);
    }
    ek_protobuf_end(&graph, start);
    tensor("bytes", 3, "2", "1,-2");
    node("Cast", "bytes", "f", "to=i1");
    node("Mul", "x f", "m", "");
    node("Add", "m w", "y", "");
    put_onnx("external", 17);
    ek_protobuf_free(&graph);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
        return 2;
    }
    root = argv[1];
    (void)mkdir(root, 0777);
    DONE(ek_context_create(NULL, &context));
    write_idx();
    write_npy();
    write_csv();
    write_gz();
    write_png();
    write_jpeg();
    write_nets();
    write_safetensors();
    write_checkpoint();
    write_onnx();
    ek_context_destroy(context);
    return 0;
}
