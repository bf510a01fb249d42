/* Between rows [sample][feature] and lanes [feature][lane], by transposing VL x VL squares. */

static void lanes_to_rows(int64_t features, int live, const float *lanes, float *rows)
{
    for (int part = 0; part < live; part += VL)
        for (int64_t f = 0; f < features; f += VL) {
            int n = at_most_vl(features - f);
            vf v[VL];
            UNROLL for (int i = 0; i < VL; i++) v[i] = i < n ? load(lanes + (f + i) * EK_LANES + part) : splat(0.0f);
            transpose(v);
            float *to = rows + part * features + f;
            UNROLL for (int i = 0; i < VL; i++)
                if (part + i < live) store_n(to + i * features, v[i], n);
        }
}

static void rows_to_lanes(int64_t features, int live, const float *rows, float *lanes)
{
    for (int part = 0; part < EK_LANES; part += VL)
        for (int64_t f = 0; f < features; f += VL) {
            int n = at_most_vl(features - f);
            const float *from = rows + part * features + f;
            vf v[VL];
            UNROLL for (int i = 0; i < VL; i++) v[i] = part + i < live ? load_n(from + i * features, n) : splat(0.0f);
            transpose(v);
            UNROLL for (int i = 0; i < VL; i++)
                if (i < n) store(lanes + (f + i) * EK_LANES + part, v[i]);
        }
}
