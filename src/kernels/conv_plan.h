/* How a convolution is computed: by minimal filtering (Winograd's, made by the Toom-Cook method) where that takes
 * fewer operations, directly elsewhere. The choice depends on the shape alone and is the same for every
 * instruction set.
 *
 * Minimal filtering F(4, k) makes four outputs of a k-tap filter from k+3 products instead of 4k:
 *
 *   y = A'[(G w) . (B' x)]     A' 4 x (k+3), G (k+3) x k, B' (k+3) x (k+3); . element by element
 *
 * The k+3 elements are called points: polynomials are evaluated there. B' and A' are a few additions and
 * multiplications by constants of whole lane rows, and sums over input channels are taken between the products
 * and A'. Tiles of four outputs stand across a row. A 3x3 kernel is transformed down the columns as well,
 * F(4x4, 3x3), and takes a quarter of the products. A kernel 5 wide is transformed across only, because F(4, 5) in
 * both directions would lose too much to rounding, and takes two fifths of them; so is one 3 wide and of another
 * height, which takes half. Their rows are summed over as channels are. */
#ifndef EK_KERNELS_CONV_PLAN_H
#define EK_KERNELS_CONV_PLAN_H

#include "kernels/kernels.h"

enum {
    WINOGRAD_TILE = 4,       /* outputs */
    WINOGRAD_MOST_ROWS = 6,  /* source rows of a tile */
    WINOGRAD_MOST_POINTS = 8 /* across */
};

typedef struct conv_winograd {
    bool used;
    int tile_rows;                   /* output rows of a tile: 4; 1 where columns are not transformed */
    int points_down, points_across;  /* 6 or 1; kw + 3 */
    int points;                      /* their product */
    int rows;                        /* kernel rows that are summed over: 1, or kh where columns are not transformed */
    int down, across;                /* tiles */
    int band;                        /* rows of tiles that are worked on together, so that they stay in the cache */
    int line;                        /* pixels across that a row of tiles reads */
    int in, out;                     /* channels of a group */
    bool turned;                     /* weight gradients: see lane_winograd_weights.h */
    size_t v, z, weights, lines, carry, room; /* scratch: floats of each part, and of all */
} conv_winograd;

conv_winograd ek_conv_winograd(const ek_conv *g);

/* Scratch of direct convolution, floats: the source and dy of a group with their borders, and a row of dx. */
typedef struct conv_direct_room {
    size_t source, gradient, row;
} conv_direct_room;

conv_direct_room ek_conv_direct_room(const ek_conv *g);

#endif
