/* The transforms of minimal filtering (conv_plan.h), on vectors: from a row to its points and back.
 *
 * F(4, 3): points 0, 1, -1, 2, -1/2 and infinity; F(4, 5): 0, +-1, +-2, +-1/2 and infinity. Row p of B' holds
 * the coefficients of the product of (x - q) over the other points q, row p of G the powers of p over that product
 * at x = p, row p of A the powers of p. The asymmetric pair 2, -1/2 loses less accuracy than 2, -2. */

/* v = B' d: a tile of the source as its points. */
TEMPLATE void source_points(const int k, const vf *d, vf *v)
{
    if (k == 3) {
        vf e0 = d[2] - d[0], e1 = d[3] - d[1], e2 = d[4] - d[2], e3 = d[5] - d[3]; /* times x^2 - 1 */
        vf f1 = e1 - 1.5f * d[2], f2 = e2 - 1.5f * d[3];                           /* times (x - 2)(x + 1/2) */
        v[0] = e2 - 1.5f * e1 - e0;
        v[1] = f2 + f1;
        v[2] = f2 - f1;
        v[3] = e2 + 0.5f * e1;
        v[4] = e2 - 2.0f * e1;
        v[5] = e3 - 1.5f * e2 - e1;
    } else {
        vf even1 = d[6] + d[2] - 4.25f * d[4], odd1 = d[5] + d[1] - 4.25f * d[3];
        vf even2 = d[6] - 1.25f * d[4] + 0.25f * d[2], odd2 = d[5] - 1.25f * d[3] + 0.25f * d[1];
        vf even3 = d[6] - 5.0f * d[4] + 4.0f * d[2], odd3 = d[5] - 5.0f * d[3] + 4.0f * d[1];
        v[0] = d[6] - d[0] + 5.25f * (d[2] - d[4]);
        v[1] = even1 + odd1;
        v[2] = even1 - odd1;
        v[3] = even2 + 2.0f * odd2;
        v[4] = even2 - 2.0f * odd2;
        v[5] = even3 + 0.5f * odd3;
        v[6] = even3 - 0.5f * odd3;
        v[7] = d[7] - d[1] + 5.25f * (d[3] - d[5]);
    }
}

/* d = B v: the transpose. */
TEMPLATE void source_from_points(const int k, const vf *v, vf *d)
{
    if (k == 3) {
        vf f1 = v[1] - v[2], f2 = v[1] + v[2];
        vf e1 = 0.5f * v[3] - 2.0f * v[4] - 1.5f * v[0] + (f1 - v[5]);
        vf e2 = v[3] + v[4] - 1.5f * v[5] + (f2 + v[0]);
        d[0] = v[0];
        d[1] = -e1;
        d[2] = -v[0] - e2 - 1.5f * f1;
        d[3] = e1 - v[5] - 1.5f * f2;
        d[4] = e2;
        d[5] = v[5];
    } else {
        vf s1 = v[1] + v[2], s2 = v[3] + v[4], s3 = v[5] + v[6];
        vf t1 = v[1] - v[2], t2 = v[3] - v[4], t3 = v[5] - v[6];
        d[0] = -v[0];
        d[1] = t1 + 0.5f * t2 + 2.0f * t3 - v[7];
        d[2] = s1 + 0.25f * s2 + 4.0f * s3 + 5.25f * v[0];
        d[3] = 5.25f * v[7] - 4.25f * t1 - 2.5f * (t2 + t3);
        d[4] = -4.25f * s1 - 1.25f * s2 - 5.0f * s3 - 5.25f * v[0];
        d[5] = t1 + 2.0f * t2 + 0.5f * t3 - 5.25f * v[7];
        d[6] = s1 + s2 + (s3 + v[0]);
        d[7] = v[7];
    }
}

/* y = A' m: four outputs from their points. */
TEMPLATE void outputs_from_points(const int k, const vf *m, vf *y)
{
    vf s = m[1] + m[2], d = m[1] - m[2];
    if (k == 3) {
        y[0] = m[0] + s + (m[3] + m[4]);
        y[1] = d + 2.0f * m[3] - 0.5f * m[4];
        y[2] = s + 4.0f * m[3] + 0.25f * m[4];
        y[3] = d + 8.0f * m[3] - 0.125f * m[4] + m[5];
    } else {
        vf s2 = m[3] + m[4], d2 = m[3] - m[4], s3 = m[5] + m[6], d3 = m[5] - m[6];
        y[0] = m[0] + s + (s2 + s3);
        y[1] = d + 2.0f * d2 + 0.5f * d3;
        y[2] = s + 4.0f * s2 + 0.25f * s3;
        y[3] = d + 8.0f * d2 + 0.125f * d3 + m[7];
    }
}

/* z = A y: the transpose. */
TEMPLATE void output_points(const int k, const vf *y, vf *z)
{
    vf even = y[0] + y[2], odd = y[1] + y[3];
    z[0] = y[0];
    z[1] = even + odd;
    z[2] = even - odd;
    if (k == 3) {
        z[3] = y[0] + 2.0f * y[1] + 4.0f * y[2] + 8.0f * y[3];
        z[4] = y[0] - 0.5f * y[1] + 0.25f * y[2] - 0.125f * y[3];
        z[5] = y[3];
    } else {
        vf even2 = y[0] + 4.0f * y[2], odd2 = 2.0f * y[1] + 8.0f * y[3];
        vf even3 = y[0] + 0.25f * y[2], odd3 = 0.5f * y[1] + 0.125f * y[3];
        z[3] = even2 + odd2;
        z[4] = even2 - odd2;
        z[5] = even3 + odd3;
        z[6] = even3 - odd3;
        z[7] = y[3];
    }
}

/* u = G w: k taps as their points. */
TEMPLATE void weight_points(const int k, const vf *w, vf *u)
{
    if (k == 3) {
        vf even = (w[0] + w[2]) * (1.0f / 3.0f), odd = w[1] * (1.0f / 3.0f);
        u[0] = w[0];
        u[1] = -even - odd;
        u[2] = even - odd;
        u[3] = (w[0] + 2.0f * w[1] + 4.0f * w[2]) * (1.0f / 15.0f);
        u[4] = (w[0] - 0.5f * w[1] + 0.25f * w[2]) * (-16.0f / 15.0f);
        u[5] = w[2];
    } else {
        vf even1 = (w[0] + w[2] + w[4]) * (-2.0f / 9.0f), odd1 = (w[1] + w[3]) * (-2.0f / 9.0f);
        vf even2 = (w[0] + 4.0f * w[2] + 16.0f * w[4]) * (1.0f / 90.0f), odd2 = (w[1] + 4.0f * w[3]) * (1.0f / 45.0f);
        vf even3 = (w[0] + 0.25f * w[2] + 0.0625f * w[4]) * (32.0f / 45.0f), odd3 = (w[1] + 0.25f * w[3]) * (16.0f / 45.0f);
        u[0] = -w[0];
        u[1] = even1 + odd1;
        u[2] = even1 - odd1;
        u[3] = even2 + odd2;
        u[4] = even2 - odd2;
        u[5] = even3 + odd3;
        u[6] = even3 - odd3;
        u[7] = w[4];
    }
}

/* w = G' u: the transpose. */
TEMPLATE void weights_from_points(const int k, const vf *u, vf *w)
{
    if (k == 3) {
        vf s = (u[2] - u[1]) * (1.0f / 3.0f), d = (u[1] + u[2]) * (-1.0f / 3.0f);
        vf two = u[3] * (1.0f / 15.0f), half = u[4] * (-16.0f / 15.0f);
        w[0] = u[0] + s + (two + half);
        w[1] = d + 2.0f * two - 0.5f * half;
        w[2] = s + 4.0f * two + 0.25f * half + u[5];
    } else {
        vf s1 = (u[1] + u[2]) * (-2.0f / 9.0f), d1 = (u[1] - u[2]) * (-2.0f / 9.0f);
        vf s2 = (u[3] + u[4]) * (1.0f / 90.0f), d2 = (u[3] - u[4]) * (1.0f / 45.0f);
        vf s3 = (u[5] + u[6]) * (32.0f / 45.0f), d3 = (u[5] - u[6]) * (16.0f / 45.0f);
        w[0] = s1 + (s2 + s3) - u[0];
        w[1] = d1 + d2 + d3;
        w[2] = s1 + 4.0f * s2 + 0.25f * s3;
        w[3] = d1 + 4.0f * d2 + 0.25f * d3;
        w[4] = s1 + 16.0f * s2 + 0.0625f * s3 + u[7];
    }
}
