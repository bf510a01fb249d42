#include "formats/image.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"
#include "formats/arrays.h"

#include <math.h>
#include <string.h>
#include <strings.h>

bool ek_image_named(const char *name)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg"};
    const char *ending = strrchr(name, '.');
    for (int i = 0; ending && i < 3; i++) {
        if (!strcasecmp(ending, endings[i])) return true;
    }
    return false;
}

static const ek_image_kind *kind_of(const unsigned char *start, size_t size)
{
    if (size >= 4 && !memcmp(start, "\x89PNG", 4)) return &ek_image_png;
    if (size >= 3 && !memcmp(start, "\xff\xd8\xff", 3)) return &ek_image_jpeg;
    return NULL;
}

ek_status ek_image_is(const char *path, bool *image)
{
    unsigned char start[4];
    size_t got;
    EK_TRY(ek_file_begin(path, sizeof start, start, &got));
    *image = kind_of(start, got) != NULL;
    return EK_OK;
}

static ek_status open_image(const char *path, FILE **file, const ek_image_kind **kind)
{
    unsigned char start[4];
    EK_TRY(ek_file_open_stream(path, file));
    size_t got = fread(start, 1, sizeof start, *file);
    *kind = kind_of(start, got);
    rewind(*file);
    if (*kind && (*kind)->look) return EK_OK;
    fclose(*file);
    if (*kind)
        return ek_fail(EK_E_UNSUPPORTED, "cannot read %s: this build has no %s support (it needs %s)", path,
                       (*kind)->name, (*kind)->library);
    return ek_fail(EK_E_FORMAT, "%s is neither a PNG nor a JPEG file", path);
}

static ek_status check_size(const ek_image_info *info)
{
    if (info->h > 0 && info->w > 0 && info->h <= EK_IMAGE_MAX_SIDE && info->w <= EK_IMAGE_MAX_SIDE)
        return EK_OK;
    return ek_fail(EK_E_UNSUPPORTED, "it has %lld x %lld pixels; at most %d x %d are read",
                   (long long)info->w, (long long)info->h, EK_IMAGE_MAX_SIDE, EK_IMAGE_MAX_SIDE);
}

static ek_status look(FILE *file, const ek_image_kind *kind, ek_image_info *out)
{
    EK_TRY(kind->look(file, out));
    return check_size(out);
}

ek_status ek_image_look(const char *path, ek_image_info *out)
{
    FILE *file;
    const ek_image_kind *kind;
    EK_TRY(open_image(path, &file, &kind));
    ek_status status = look(file, kind, out);
    fclose(file);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "%s: ", path);
}

ek_status ek_image_decode(const char *path, const ek_image_info *info, int channels, unsigned char *out,
                          unsigned char *scratch)
{
    FILE *file;
    const ek_image_kind *kind;
    EK_TRY(open_image(path, &file, &kind));
    ek_status status = kind->decode(file, info, channels, out, scratch);
    fclose(file);
    return status == EK_OK ? EK_OK : ek_fail_in(status, "%s: ", path);
}

ek_status ek_image_changed(void)
{
    return ek_fail(EK_E_FORMAT, "it is not the image that it was when it was first looked at");
}

ek_status ek_image_read(const char *path, int channels, ek_array *out)
{
    if (channels != 1 && channels != 3)
        return ek_fail(EK_E_SHAPE, "%s: an image gives 1 or 3 channels, not %d", path, channels);
    ek_image_info info;
    unsigned char *scratch = NULL, *data = NULL;
    EK_TRY(ek_image_look(path, &info));
    ek_status status = EK_OK;
    int64_t count = channels * info.h * info.w;
    EK_GO(EK_NEW(scratch, info.scratch));
    EK_GO(EK_NEW(data, (size_t)count));
    EK_GO(ek_image_decode(path, &info, channels, data, scratch));
    *out = (ek_array){
        .type = EK_ARRAY_U8, .rank = 3, .dim = {channels, info.h, info.w}, .count = count, .data = data};
    data = NULL;
done:
    ek_free(data);
    ek_free(scratch);
    return status;
}

/* --- scaling */

/* One output number of a line: which numbers it is made of, and their weights, triangle(distance / reach). */
typedef struct tap {
    int64_t first, count;
    double centre, reach, sum;
} tap;

/* `scale`: outputs a number; the outputs' middle is the line's. */
static tap tap_of(int64_t i, int64_t outputs, int64_t length, double scale)
{
    double reach = scale < 1 ? 1 / scale : 1;
    tap t = {.centre = (double)length / 2 + ((double)i + 0.5 - (double)outputs / 2) / scale - 0.5,
             .reach = reach};
    int64_t last = (int64_t)ceil(t.centre + reach) - 1;
    t.first = (int64_t)floor(t.centre - reach) + 1;
    if (t.first < 0) t.first = 0;
    if (last > length - 1) last = length - 1;
    t.count = last - t.first + 1;
    for (int64_t k = 0; k < t.count; k++) t.sum += reach - fabs((double)(t.first + k) - t.centre);
    return t;
}

static float weight(const tap *t, int64_t k)
{
    return (float)((t->reach - fabs((double)(t->first + k) - t->centre)) / t->sum);
}

size_t ek_image_scale_scratch(int64_t h, int64_t to_w) { return (size_t)(h * to_w); }

void ek_image_scale(const unsigned char *from, int channels, int64_t h, int64_t w, int64_t to_h, int64_t to_w,
                    unsigned char *out, float *scratch)
{
    double scale = fmax((double)to_h / (double)h, (double)to_w / (double)w);
    for (int c = 0; c < channels; c++, from += h * w, out += to_h * to_w) {
        memset(scratch, 0, (size_t)(h * to_w) * sizeof *scratch);
        for (int64_t x = 0; x < to_w; x++) {
            tap t = tap_of(x, to_w, w, scale);
            for (int64_t k = 0; k < t.count; k++) {
                float share = weight(&t, k);
                for (int64_t y = 0; y < h; y++) scratch[y * to_w + x] += share * from[y * w + t.first + k];
            }
        }
        for (int64_t y = 0; y < to_h; y++) {
            tap t = tap_of(y, to_h, h, scale);
            for (int64_t x = 0; x < to_w; x++) {
                float sum = 0.5f; /* rounds */
                for (int64_t k = 0; k < t.count; k++)
                    sum += weight(&t, k) * scratch[(t.first + k) * to_w + x];
                out[y * to_w + x] = (unsigned char)(sum > 255 ? 255 : sum);
            }
        }
    }
}
