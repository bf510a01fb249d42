/* Rows as convolutions read them, x or dy, and the sums over a map that is written a row at a time. */

typedef struct row_source {
    const ek_map_in *map; /* or NULL: */
    const ek_grad_in *gradient;
} row_source;

static void read_row(const row_source *s, int c, int64_t at, int64_t count, float *to)
{
    if (s->map) read_map(s->map, c, at, count, to);
    else read_gradient(s->gradient, c, at, count, to);
}

/* Where nothing is to be done to it: the block itself. */
static const float *as_it_is(const row_source *s)
{
    if (s->map) return is_plain(s->map) ? s->map->x : NULL;
    return is_plain_gradient(s->gradient) ? s->gradient->g : NULL;
}

/* The sums of the rows written so far; clear_sums() before the first. */
static void clear_sums(const ek_grad_out *o)
{
    if (o->sums) memset(o->sums, 0, 2 * (size_t)o->channels * sizeof *o->sums);
}

static void add_sums(const ek_grad_out *o, int c, const lane_sums *sums)
{
    if (!sums) return;
    o->sums[c] += sum_doubles(sums->g);
    o->sums[o->channels + c] += sum_doubles(sums->gx);
}
