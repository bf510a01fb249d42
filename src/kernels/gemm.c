#include "kernels/kernels.h"

#include "core/threads.h"
#include "kernels/gemm_blocks.h"

/* Tiles that a thread takes: small enough that a LeNet's layers feed a few threads, large enough that
 * packing is a small part of the work. */
enum { TILE_ROWS = 96, TILE_COLUMNS = 64 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* For the deepest block that any product of depth k or less has: equal blocks make gemm_depth fall where k
 * passes a multiple of GEMM_DEPTH, and one scratch serves products of several depths. */
size_t ek_gemm_scratch(int64_t k, int64_t rows, int64_t columns)
{
    return (size_t)least(k, GEMM_DEPTH) *
           (size_t)(gemm_round_up(rows, GEMM_PANEL_ROWS) + gemm_round_up(columns, GEMM_PANEL_COLUMNS));
}

size_t ek_gemm_thread_scratch(int64_t k) { return ek_gemm_scratch(k, TILE_ROWS, TILE_COLUMNS); }

/* `count` in equal tiles of at most `most`, a multiple of `panel`. */
static int64_t tile_size(int64_t count, int64_t most, int64_t panel)
{
    int64_t tiles = (count + most - 1) / most;
    return tiles > 0 ? gemm_round_up((count + tiles - 1) / tiles, panel) : panel;
}

typedef struct gemm_job {
    const ek_kernels *kernels;
    const ek_gemm *g;
    float *scratch;
    size_t scratch_each;
    int64_t rows, columns, tiles_across;
} gemm_job;

static void run_tile(void *argument, int64_t piece, int thread)
{
    const gemm_job *job = argument;
    int64_t m0 = piece / job->tiles_across * job->rows, n0 = piece % job->tiles_across * job->columns;
    job->kernels->gemm_tile(job->g, m0, least(m0 + job->rows, job->g->m), n0,
                            least(n0 + job->columns, job->g->n),
                            job->scratch + job->scratch_each * (size_t)thread);
}

void ek_gemm_run(const ek_kernels *kernels, struct ek_pool *pool, const ek_gemm *g, float *scratch)
{
    if (g->m <= 0 || g->n <= 0) return;
    gemm_job job = {kernels, g, scratch, ek_gemm_thread_scratch(g->k), 0, 0, 0};
    job.rows = tile_size(g->m, TILE_ROWS, GEMM_PANEL_ROWS);
    job.columns = tile_size(g->n, TILE_COLUMNS, GEMM_PANEL_COLUMNS);
    job.tiles_across = (g->n + job.columns - 1) / job.columns;
    ek_pool_run(pool, (g->m + job.rows - 1) / job.rows * job.tiles_across, run_tile, &job);
}
