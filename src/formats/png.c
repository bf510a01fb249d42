/* PNG through libpng's simplified interface, which reports errors by value: no longjmp crosses our frames. */
#include "formats/image.h"

#ifdef EK_HAVE_PNG

#include <png.h>
#include <string.h>
#include <sys/stat.h>

enum { CHANNELS = 4 };

/* libpng's sentence is all there is to tell the reasons apart. */
static ek_status fail_png(const png_image *image, const char *what)
{
    bool memory = strcasestr(image->message, "out of memory") || strcasestr(image->message, "insufficient memory");
    return ek_fail(memory ? EK_E_MEMORY : EK_E_FORMAT, "it is %s PNG: %s", what, image->message);
}

static ek_status begin(FILE *file, png_image *image)
{
    return png_image_begin_read_from_stdio(image, file) ? EK_OK : fail_png(image, "not a readable");
}

/* A pixel has a bit or more, of which deflate's best makes 1032 from one: nobody makes room for what the file cannot
 * hold. */
static ek_status check_length(FILE *file, const png_image *image)
{
    struct stat info;
    if (fstat(fileno(file), &info) != 0) return ek_fail_errno("it cannot be read");
    if ((uint64_t)image->width * image->height / 8 <= 1032 * (uint64_t)info.st_size) return EK_OK;
    return ek_fail(EK_E_FORMAT, "it is cut short: %u x %u pixels cannot be in its %lld bytes", (unsigned)image->width,
                   (unsigned)image->height, (long long)info.st_size);
}

static ek_status look(FILE *file, ek_image_info *out)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    ek_status status = begin(file, &image);
    if (status == EK_OK && image.width <= EK_IMAGE_MAX_SIDE && image.height <= EK_IMAGE_MAX_SIDE)
        status = check_length(file, &image);
    if (status == EK_OK) {
        *out = (ek_image_info){
            .h = image.height, .w = image.width, .colour = image.format & PNG_FORMAT_FLAG_COLOR};
        out->scratch = (size_t)CHANNELS * image.height * image.width;
    }
    png_image_free(&image);
    return status;
}

/* [h, w, 4] to [channels, h, w], alpha over black; grey is Rec. 601's luma. */
static void arrange(const unsigned char *rgba, int64_t pixels, int channels, unsigned char *out)
{
    for (int64_t i = 0; i < pixels; i++, rgba += CHANNELS) {
        int over[3];
        for (int c = 0; c < 3; c++) over[c] = (rgba[c] * rgba[3] + 127) / 255;
        if (channels == 1) {
            out[i] = (unsigned char)((299 * over[0] + 587 * over[1] + 114 * over[2] + 500) / 1000);
        } else {
            for (int c = 0; c < 3; c++) out[c * pixels + i] = (unsigned char)over[c];
        }
    }
}

static ek_status decode(FILE *file, const ek_image_info *info, int channels, unsigned char *out,
                        unsigned char *scratch)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    ek_status status = begin(file, &image);
    size_t bytes = (size_t)CHANNELS * image.height * image.width;
    if (status == EK_OK && (image.height != info->h || image.width != info->w || bytes > info->scratch))
        status = ek_image_changed();
    image.format = PNG_FORMAT_RGBA;
    if (status == EK_OK && !png_image_finish_read(&image, NULL, scratch, 0, NULL))
        status = fail_png(&image, "a broken");
    if (status == EK_OK) arrange(scratch, info->h * info->w, channels, out);
    png_image_free(&image);
    return status;
}

const ek_image_kind ek_image_png = {"PNG", "libpng", look, decode};

#else

const ek_image_kind ek_image_png = {"PNG", "libpng", NULL, NULL};

#endif
