/* PNG through libpng's simplified interface, which reports errors by value: no longjmp crosses our frames. */
#include "formats/image.h"

#include "core/memory.h"

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

static uint32_t number_at(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* A pixel has a bit or more, of which deflate's best makes 1032 from one: nobody makes room for what the file cannot
 * hold. */
static ek_status check_length(FILE *file, uint32_t w, uint32_t h)
{
    struct stat info;
    if (fstat(fileno(file), &info) != 0) return ek_fail_errno("it cannot be read");
    if ((uint64_t)w * h / 8 <= 1032 * (uint64_t)info.st_size) return EK_OK;
    return ek_fail(EK_E_FORMAT, "it is cut short: %u x %u pixels cannot be in its %lld bytes", (unsigned)w, (unsigned)h,
                   (long long)info.st_size);
}

/* The header, the first chunk after the signature: length, IHDR, width, height, depth, colour type. */
static ek_status look(FILE *file, ek_image_info *out)
{
    enum { TYPE = 12, WIDTH = 16, HEIGHT = 20, COLOUR = 25, HEADER = 33, HAS_COLOUR = 2 };
    unsigned char header[HEADER];
    if (fread(header, 1, HEADER, file) != HEADER || memcmp(header + TYPE, "IHDR", 4) != 0)
        return ek_fail(EK_E_FORMAT, "it is not a readable PNG: it does not begin with a header");
    uint32_t w = number_at(header + WIDTH), h = number_at(header + HEIGHT);
    if (w <= EK_IMAGE_MAX_SIDE && h <= EK_IMAGE_MAX_SIDE) EK_TRY(check_length(file, w, h));
    *out = (ek_image_info){.h = h, .w = w, .colour = header[COLOUR] & HAS_COLOUR, .scratch = (size_t)CHANNELS * h * w};
    return EK_OK;
}

/* Whether a chunk says something of the pixels: those that must be understood, and what transparency and brightness mean. */
static bool tells_of_pixels(const unsigned char *type)
{
    static const char *const others[] = {"tRNS", "gAMA", "cHRM", "sRGB"};
    bool tells = !(type[0] & 0x20); /* a capital: it must be */
    for (int i = 0; i < 4; i++) tells |= !memcmp(type, others[i], 4);
    return tells;
}

/* The chunks of a file that say something of its pixels, one after the other: libpng makes room for a chunk by the length that it says of
 * itself, and unpacks texts that nobody reads. */
static ek_status take_chunks(unsigned char *bytes, size_t size, size_t *kept)
{
    enum { SIGNATURE = 8, AROUND = 12 }; /* length, type and checksum */
    size_t at = *kept = SIGNATURE;
    while (at + AROUND <= size) {
        const unsigned char *type = bytes + at + 4;
        size_t length = number_at(bytes + at);
        if (length > size - at - AROUND)
            return ek_fail(EK_E_FORMAT, "it is a broken PNG, cut short: a part of %zu bytes does not fit its %zu", length, size);
        length += AROUND;
        bool last = !memcmp(type, "IEND", 4);
        if (tells_of_pixels(type)) {
            memmove(bytes + *kept, bytes + at, length);
            *kept += length;
        }
        at += length;
        if (last) break;
    }
    return EK_OK;
}

/* *bytes: ek_free. */
static ek_status load(FILE *file, unsigned char **bytes, size_t *size)
{
    enum { LEAST = 8 };
    static const off_t most = (off_t)1 << 28;
    struct stat info;
    if (fstat(fileno(file), &info) != 0) return ek_fail_errno("it cannot be read");
    if (info.st_size < LEAST) return ek_fail(EK_E_FORMAT, "it is not a readable PNG: it has %lld bytes", (long long)info.st_size);
    if (info.st_size > most)
        return ek_fail(EK_E_UNSUPPORTED, "it has %lld bytes; PNG files of at most %lld are read", (long long)info.st_size,
                       (long long)most);
    EK_TRY(EK_NEW(*bytes, (size_t)info.st_size));
    *size = fread(*bytes, 1, (size_t)info.st_size, file);
    ek_status status = ferror(file) ? ek_fail_errno("it cannot be read") : take_chunks(*bytes, *size, size);
    if (status != EK_OK) ek_free(*bytes);
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
    unsigned char *bytes = NULL;
    size_t size = 0;
    EK_TRY(load(file, &bytes, &size));
    ek_status status = EK_OK;
    if (!png_image_begin_read_from_memory(&image, bytes, size)) status = fail_png(&image, "not a readable");
    if (status == EK_OK && (image.height != info->h || image.width != info->w ||
                            (size_t)CHANNELS * image.height * image.width > info->scratch))
        status = ek_image_changed();
    image.format = PNG_FORMAT_RGBA;
    if (status == EK_OK && !png_image_finish_read(&image, NULL, scratch, 0, NULL))
        status = fail_png(&image, "a broken");
    if (status == EK_OK) arrange(scratch, info->h * info->w, channels, out);
    png_image_free(&image);
    ek_free(bytes);
    return status;
}

const ek_image_kind ek_image_png = {"PNG", "libpng", look, decode};

#else

const ek_image_kind ek_image_png = {"PNG", "libpng", NULL, NULL};

#endif
