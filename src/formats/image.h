/* PNG and JPEG files, each where its library was there when this was built. Every file is taken as hostile. */
#ifndef EK_FORMATS_IMAGE_H
#define EK_FORMATS_IMAGE_H

#include "core/status.h"

#include <stdio.h>

enum { EK_IMAGE_MAX_SIDE = 4096 };

typedef struct ek_image_info {
    int64_t h, w; /* 1 to EK_IMAGE_MAX_SIDE */
    bool colour;
    size_t scratch; /* bytes that decoding it needs */
} ek_image_info;

/* A name that ends like that of an image: .png, .jpg or .jpeg. */
bool ek_image_named(const char *name);
/* The file's first bytes are an image's. */
ek_status ek_image_is(const char *path, bool *image);

/* What the file's beginning says. EK_E_UNSUPPORTED: too many pixels, CMYK, or built without the library. */
ek_status ek_image_look(const char *path, ek_image_info *out);
/* u8 [channels, h, w], channels 1 or 3 (colour is turned to grey, grey repeated; alpha over black). The image must be as
 * large as `info` says, which ek_image_look has told, and do with its scratch memory. */
ek_status ek_image_decode(const char *path, const ek_image_info *info, int channels, unsigned char *out,
                          unsigned char *scratch);

/* Planes [channels, h, w] to [channels, to_h, to_w]: scaled so that they cover it, the middle cut out. Each number is the
 * mean of those around it, weighted by a triangle as wide as the step from one to the next on the coarser side. */
void ek_image_scale(const unsigned char *from, int channels, int64_t h, int64_t w, int64_t to_h, int64_t to_w,
                    unsigned char *out, float *scratch);
size_t ek_image_scale_scratch(int64_t h, int64_t to_w); /* floats */

ek_status ek_image_changed(void); /* fails with a sentence that says so, without the file */

/* The kinds, on a file that is open; the messages do not name it. */
typedef struct ek_image_kind {
    const char *name, *library; /* look NULL: built without it */
    ek_status (*look)(FILE *file, ek_image_info *out);
    ek_status (*decode)(FILE *file, const ek_image_info *info, int channels, unsigned char *out,
                        unsigned char *scratch);
} ek_image_kind;
extern const ek_image_kind ek_image_png, ek_image_jpeg;

#endif
