/* PNG through libpng's simplified interface, which reports errors by value: no longjmp crosses our frames. */
#include "core/file.h"
#include "core/memory.h"
#include "formats/arrays.h"

#ifdef EK_HAVE_PNG

#include <png.h>
#include <string.h>

enum { MAX_SIDE = 4096, CHANNELS = 4 };

static const size_t MAX_FILE = (size_t)1 << 28;

/* libpng's sentence is all there is to tell the reasons apart. */
static ek_status fail_png(const png_image *image, const char *what)
{
    bool memory = strcasestr(image->message, "out of memory") || strcasestr(image->message, "insufficient memory");
    return ek_fail(memory ? EK_E_MEMORY : EK_E_FORMAT, "it is %s PNG: %s", what, image->message);
}

/* Decodes to RGBA bytes [h, w, 4]. */
static ek_status decode(const unsigned char *bytes, size_t size, png_image *image, unsigned char **rgba)
{
    if (!png_image_begin_read_from_memory(image, bytes, size))
        return fail_png(image, "not a readable");
    if (image->width > MAX_SIDE || image->height > MAX_SIDE)
        return ek_fail(EK_E_UNSUPPORTED, "it has %u x %u pixels; at most %d x %d are read",
                       (unsigned)image->width, (unsigned)image->height, MAX_SIDE, MAX_SIDE);
    image->format = PNG_FORMAT_RGBA;
    EK_TRY(EK_NEW(*rgba, PNG_IMAGE_SIZE(*image)));
    if (!png_image_finish_read(image, NULL, *rgba, 0, NULL))
        return fail_png(image, "a broken");
    return EK_OK;
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

ek_status ek_png_read(const char *path, int channels, ek_array *out)
{
    if (channels != 1 && channels != 3)
        return ek_fail(EK_E_SHAPE, "%s: a PNG gives 1 or 3 channels, not %d", path, channels);
    unsigned char *bytes, *rgba = NULL, *data = NULL;
    size_t size;
    EK_TRY(ek_file_read(path, MAX_FILE, &bytes, &size));
    ek_status status = EK_OK;
    png_image image = {.version = PNG_IMAGE_VERSION};
    EK_GO(decode(bytes, size, &image, &rgba));
    int64_t h = image.height, w = image.width;
    EK_GO(EK_NEW(data, (size_t)(channels * h * w)));
    arrange(rgba, h * w, channels, data);
    *out = (ek_array){
        .type = EK_ARRAY_U8, .rank = 3, .dim = {channels, h, w}, .count = channels * h * w, .data = data};
done:
    if (status != EK_OK) ek_fail_in(status, "%s: ", path);
    png_image_free(&image);
    ek_free(rgba);
    ek_free(bytes);
    return status;
}

#else

ek_status ek_png_read(const char *path, int channels, ek_array *out)
{
    (void)channels;
    (void)out;
    return ek_fail(EK_E_UNSUPPORTED, "cannot read %s: this build has no PNG support (it needs libpng)", path);
}

#endif
