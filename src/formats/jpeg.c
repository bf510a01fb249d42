/* JPEG through libjpeg. Its errors leave by longjmp, over its own frames and one of ours that holds nothing. */
#include "formats/image.h"

#ifdef EK_HAVE_JPEG

#include <jpeglib.h>

#include <jerror.h>
#include <setjmp.h>

enum { MAX_SCANS = 500 }; /* a progressive file may be made of as many as it likes; encoders write some ten */

typedef struct decoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
} decoder;

static void give_up(j_common_ptr jpeg)
{
    decoder *d = jpeg->client_data;
    jpeg->err->format_message(jpeg, d->message);
    longjmp(d->back, 1);
}

/* Most warnings are harmless; these say that part of the image is missing, and grey would stand for it. */
static void warn(j_common_ptr jpeg, int level)
{
    int code = jpeg->err->msg_code;
    if (level < 0 && (code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE || code == JWRN_ARITH_BAD_CODE ||
                      code == JWRN_JPEG_EOF || code == JWRN_MUST_RESYNC))
        give_up(jpeg);
}

static void print_nothing(j_common_ptr jpeg) { (void)jpeg; }

static void watch_scans(j_common_ptr jpeg)
{
    decoder *d = jpeg->client_data;
    if (d->jpeg.input_scan_number <= MAX_SCANS) return;
    snprintf(d->message, sizeof d->message, "it has more than %d scans", MAX_SCANS);
    longjmp(d->back, 1);
}

/* What to do between the beginning and the end; it may be left at any call. */
typedef struct job {
    FILE *file;
    ek_image_info info;
    int channels; /* 0: a look alone */
    unsigned char *out, *row;
    bool cmyk, changed;
} job;

static void read_rows(struct jpeg_decompress_struct *jpeg, const job *j)
{
    int64_t h = j->info.h, w = j->info.w;
    jpeg->out_color_space = j->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        int64_t y = jpeg->output_scanline;
        JSAMPROW row = j->row;
        jpeg_read_scanlines(jpeg, &row, 1);
        for (int64_t x = 0; x < w; x++) {
            for (int c = 0; c < j->channels; c++) j->out[(c * h + y) * w + x] = j->row[x * j->channels + c];
        }
    }
    jpeg_finish_decompress(jpeg);
}

/* True: it went well, or what is wrong stands in the job. */
static bool run(decoder *d, job *j)
{
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    if (setjmp(d->back)) return false;
    jpeg->err = jpeg_std_error(&d->errors);
    d->errors.error_exit = give_up;
    d->errors.emit_message = warn;
    d->errors.output_message = print_nothing;
    jpeg->client_data = d;
    jpeg_create_decompress(jpeg);
    d->progress.progress_monitor = watch_scans;
    jpeg->progress = &d->progress;
    jpeg_stdio_src(jpeg, j->file);
    jpeg_read_header(jpeg, TRUE);
    j->cmyk = jpeg->num_components == 4;
    if (j->cmyk) return true;
    if (!j->channels) {
        j->info = (ek_image_info){
            .h = jpeg->image_height, .w = jpeg->image_width, .colour = jpeg->num_components > 1};
        j->info.scratch = 3 * (size_t)j->info.w;
        return true;
    }
    j->changed = jpeg->image_height != j->info.h || jpeg->image_width != j->info.w ||
                 3 * (size_t)jpeg->image_width > j->info.scratch;
    if (!j->changed) read_rows(jpeg, j);
    return true;
}

static ek_status run_job(job *j)
{
    decoder d = {.message = ""};
    bool well = run(&d, j);
    jpeg_destroy_decompress(&d.jpeg); /* harmless before it is made, and all zero */
    if (!well) return ek_fail(EK_E_FORMAT, "it is a broken JPEG: %s", d.message);
    if (j->cmyk) return ek_fail(EK_E_UNSUPPORTED, "it is a JPEG in CMYK; grey and RGB are read");
    return j->changed ? ek_image_changed() : EK_OK;
}

static ek_status look(FILE *file, ek_image_info *out)
{
    job j = {.file = file};
    EK_TRY(run_job(&j));
    *out = j.info;
    return EK_OK;
}

static ek_status decode(FILE *file, const ek_image_info *info, int channels, unsigned char *out,
                        unsigned char *scratch)
{
    job j = {.file = file, .info = *info, .channels = channels, .out = out, .row = scratch};
    return run_job(&j);
}

const ek_image_kind ek_image_jpeg = {"JPEG", "libjpeg", look, decode};

#else

const ek_image_kind ek_image_jpeg = {"JPEG", "libjpeg", NULL, NULL};

#endif
