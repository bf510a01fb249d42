/*
 * Data made from a fixed seed, for trying things without any file: ten classes that can be told apart,
 * though not by a glance.
 *
 * Images (bytes): each class has a pattern, a sum of a few low waves, part of which all classes share. An
 * item is its class's pattern moved by some pixels, with a contrast of its own and noise:
 *
 *   x[c,i,j] = 128 + contrast * (common[c] + own[class,c])(i + di, j + dj) + noise
 *
 * The move is what makes a linear layer worse than a convolution. Features (floats): a class lies in two
 * clouds on either side of its centre, which a linear layer cannot see:
 *
 *   x[f] = centre[class,f] + sign * arm[class,f] + noise,   sign = -1 or 1
 */
#include "data/sources.h"

#include "core/memory.h"
#include "core/random.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CLASSES = 10, TRAIN = 8000, TEST = 2000, WAVES = 5, MAX_IMAGE = 65536, MAX_FEATURES = 16384 };

static const uint64_t SEED = 20150211; /* the day of arXiv:1502.03167 */

/* What a sequence of random numbers is for. */
enum { PATTERNS, TRAIN_ITEMS, TEST_ITEMS };

static const double COMMON = 1.0, OWN = 0.4;    /* amplitudes of the patterns' waves */
static const double HIGHEST = 3.5;              /* cycles of a wave across the image */
static const double LEVEL = 28.0, NOISE = 36.0; /* of bytes */
static const double CENTRE = 4.2, ARM = 4.0;    /* distances, in deviations of the noise */

static double between(ek_random *random, double low, double high)
{
    return low + (high - low) * ek_random_uniform(random);
}

/* Four random bytes summed: nearly normal, mean 0, deviation 1, and much cheaper than the true thing.
 * Each byte has the variance (256^2 - 1)/12. */
static double noise(ek_random *random)
{
    uint32_t word = ek_random_u32(random);
    int sum = (int)(word & 255) + (int)(word >> 8 & 255) + (int)(word >> 16 & 255) + (int)(word >> 24);
    return (sum - 510) / 147.80054127099805;
}

/* --- images */

/* A pattern of the image and of the pixels around it that a move can bring in. */
typedef struct canvas {
    int64_t c, h, w;
    int64_t margin; /* pixels that an image can be moved */
    int64_t rows, columns;
} canvas;

static canvas make_canvas(ek_shape shape)
{
    canvas v = {.c = shape.dim[0], .h = shape.dim[1], .w = shape.dim[2]};
    int64_t side = v.h < v.w ? v.h : v.w;
    v.margin = side / 10; /* 2 of 28, 3 of 32 */
    v.rows = v.h + 2 * v.margin;
    v.columns = v.w + 2 * v.margin;
    return v;
}

/* Adds waves to pattern [rows, columns]. */
static void add_waves(ek_random *random, const canvas *v, double amplitude, float *pattern)
{
    const double turn = 6.283185307179586;
    for (int n = 0; n < WAVES; n++) {
        double a = amplitude * between(random, 0.5, 1.0);
        double fy = turn * between(random, -HIGHEST, HIGHEST) / (double)v->h;
        double fx = turn * between(random, -HIGHEST, HIGHEST) / (double)v->w;
        double phase = between(random, 0, turn);
        for (int64_t i = 0; i < v->rows; i++) {
            for (int64_t j = 0; j < v->columns; j++)
                pattern[i * v->columns + j] += (float)(a * cos(fy * (double)i + fx * (double)j + phase));
        }
    }
}

/* patterns [class][c][rows][columns] */
static ek_status make_patterns(const canvas *v, float **out)
{
    int64_t plane = v->rows * v->columns, pattern = v->c * plane;
    float *patterns;
    EK_TRY(EK_NEW(patterns, (size_t)(CLASSES * pattern)));
    ek_random random = ek_random_start(SEED, EK_STREAM_SYNTHETIC, PATTERNS);
    for (int64_t c = 0; c < v->c; c++) add_waves(&random, v, COMMON, patterns + c * plane);
    for (int k = 1; k < CLASSES; k++)
        memcpy(patterns + k * pattern, patterns, (size_t)pattern * sizeof *patterns);
    for (int64_t n = 0; n < CLASSES * v->c; n++) add_waves(&random, v, OWN, patterns + n * plane);
    *out = patterns;
    return EK_OK;
}

static void draw_image(ek_random *random, const canvas *v, const float *pattern, unsigned char *out)
{
    uint64_t places = (uint64_t)(2 * v->margin + 1);
    int64_t di = (int64_t)ek_random_below(random, places), dj = (int64_t)ek_random_below(random, places);
    double contrast = LEVEL * between(random, 0.5, 1.5);
    for (int64_t c = 0; c < v->c; c++) {
        for (int64_t i = 0; i < v->h; i++) {
            const float *row = pattern + (c * v->rows + i + di) * v->columns + dj;
            for (int64_t j = 0; j < v->w; j++) {
                double value = 128.5 + contrast * row[j] + NOISE * noise(random);
                *out++ = (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
            }
        }
    }
}

static ek_status make_images(ek_random *random, ek_dataset *d)
{
    canvas v = make_canvas(d->shape);
    float *patterns;
    EK_TRY(EK_NEW(d->bytes, (size_t)(d->count * d->item)));
    EK_TRY(make_patterns(&v, &patterns));
    for (int64_t i = 0; i < d->count; i++) {
        d->label[i] = (int32_t)ek_random_below(random, CLASSES);
        draw_image(random, &v, patterns + d->label[i] * v.c * v.rows * v.columns, d->bytes + i * d->item);
    }
    ek_free(patterns);
    return EK_OK;
}

/* --- features */

static ek_status make_features(ek_random *random, ek_dataset *d)
{
    int64_t n = d->item;
    float *centre, *arm;
    EK_TRY(EK_NEW(d->floats, (size_t)(d->count * n)));
    EK_TRY(EK_NEW(centre, (size_t)(2 * CLASSES * n)));
    arm = centre + CLASSES * n;
    ek_random places = ek_random_start(SEED, EK_STREAM_SYNTHETIC, PATTERNS);
    double scale = 1 / sqrt((double)n); /* as far apart in many dimensions as in few */
    for (int64_t i = 0; i < CLASSES * n; i++) {
        centre[i] = (float)(CENTRE * scale * noise(&places));
        arm[i] = (float)(ARM * scale * noise(&places));
    }
    for (int64_t i = 0; i < d->count; i++) {
        int64_t k = d->label[i] = (int32_t)ek_random_below(random, CLASSES);
        float sign = ek_random_below(random, 2) ? 1.0f : -1.0f, *x = d->floats + i * n;
        for (int64_t f = 0; f < n; f++)
            x[f] = centre[k * n + f] + sign * arm[k * n + f] + (float)noise(random);
    }
    ek_free(centre);
    return EK_OK;
}

/* --- the set */

static ek_status parse_shape(const char *spec, ek_shape *out)
{
    const char *text = spec + strlen("synthetic");
    *out = (ek_shape){3, {1, 28, 28}};
    if (!*text) return EK_OK;
    long long c, h, w;
    int used = 0;
    char tail;
    if (sscanf(text, ":%5lldx%5lldx%5lld%n%c", &c, &h, &w, &used, &tail) == 3 && c > 0 && h > 0 && w > 0) {
        *out = (ek_shape){3, {c, h, w}};
        if (c * h * w <= MAX_IMAGE) return EK_OK;
        return ek_fail(EK_E_ARGUMENT, "%s has %lld numbers an image; at most %d are made", spec, c * h * w,
                       MAX_IMAGE);
    }
    if (sscanf(text, ":%5lld%n%c", &c, &used, &tail) == 1 && c > 0) {
        *out = (ek_shape){1, {c}};
        if (c <= MAX_FEATURES) return EK_OK;
        return ek_fail(EK_E_ARGUMENT, "%s has too many features; at most %d are made", spec, MAX_FEATURES);
    }
    return ek_fail(EK_E_ARGUMENT,
                   "cannot read '%s': say synthetic, synthetic:3x32x32 (channels, height, width) or "
                   "synthetic:20 (features)",
                   spec);
}

ek_status ek_synthetic_open(const char *spec, ek_split split, ek_dataset **out)
{
    ek_status status = EK_OK;
    ek_dataset *d;
    EK_TRY(EK_NEW(d, 1));
    EK_GO(parse_shape(spec, &d->shape));
    d->count = split == EK_SPLIT_TRAIN ? TRAIN : TEST;
    d->item = ek_shape_count(d->shape);
    d->classes = CLASSES;
    EK_GO(EK_NEW(d->label, (size_t)d->count));
    ek_random random =
        ek_random_start(SEED, EK_STREAM_SYNTHETIC, split == EK_SPLIT_TRAIN ? TRAIN_ITEMS : TEST_ITEMS);
    EK_GO(d->shape.rank == 3 ? make_images(&random, d) : make_features(&random, d));
    *out = d;
    d = NULL;
done:
    ek_dataset_destroy(d);
    return status;
}
