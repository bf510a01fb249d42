/* The program that checks the source where it is to run: it makes inputs by a rule, and compares outputs with the net's. */
#include "ccode/source.h"


/* A linear congruence of period 2^32 (Knuth's TAOCP, volume 2, table 3.3.4-1, line 16); its upper 8 or 16 bits. */
static uint32_t next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state;
}

void ek_cc_sample(const ek_cc_samples *s, int index, float *x)
{
    uint32_t state = (uint32_t)index * 2654435761u + 1u;
    int64_t run = s->count / s->pixels.channels;
    for (int64_t i = 0; i < s->count; i++) {
        float mean = (float)s->pixels.mean[i / run], std = (float)s->pixels.std[i / run];
        uint32_t random = next(&state);
        float unit = s->step > 0 ? (float)((int)(random >> 24) - 128 - s->zero) * (float)s->step
                                 : ((float)(random >> 16) - 32768.0f) / 16384.0f;
        x[i] = unit * std + mean;
    }
}

static void write_list(ek_text *out, const char *name, int count, const double *values)
{
    char number[EK_REAL_TEXT];
    ek_text_add(out, "static const float %s[%d] = {", name, count);
    for (int i = 0; i < count; i++) ek_text_add(out, "%s%s", i ? ", " : "", ek_cc_float((float)values[i], number));
    ek_text_add(out, "};\n");
}

static void write_inputs(const ek_cc_samples *s, ek_text *out)
{
    char number[EK_REAL_TEXT];
    write_list(out, "mean", s->pixels.channels, s->pixels.mean);
    write_list(out, "deviation", s->pixels.channels, s->pixels.std);
    ek_text_add(out, "\nstatic void make_input(int index)\n{\n"
                     "    uint32_t state = (uint32_t)index * 2654435761u + 1u;\n"
                     "    for (int i = 0; i < INPUTS; i++) {\n        float unit;\n"
                     "        state = state * 1664525u + 1013904223u;\n");
    if (s->step > 0)
        ek_text_add(out, "        unit = (float)((int)(state >> 24) - %d) * %s;\n", 128 + s->zero,
                    ek_cc_float((float)s->step, number));
    else
        ek_text_add(out, "        unit = ((float)(state >> 16) - 32768.0f) / 16384.0f;\n");
    ek_text_add(out, "        in[i] = unit * deviation[i / %lld] + mean[i / %lld];\n    }\n}\n\n",
                (long long)(s->count / s->pixels.channels), (long long)(s->count / s->pixels.channels));
}

void ek_cc_write_test(const ek_cc_source *source, const ek_cc_samples *samples, const float *want, float tolerance, ek_text *out)
{
    const char *name = source->writer->name, *upper = source->writer->upper;
    char number[EK_REAL_TEXT];
    int64_t outputs = ek_shape_count(ek_net_output_shape(source->net));
    int64_t every = (outputs + EK_CC_TEST_OUTPUTS - 1) / EK_CC_TEST_OUTPUTS, checked = (outputs + every - 1) / every;
    ek_text_add(out, "/* Checks %s against the network that it was written from: %d inputs made by a rule, and what the network gave\n"
                     " * for them. Returns 0 where all agree.\n *\n"
                     " *   cc -std=c99 -O2 -o %s_test THIS_FILE.c THE_SOURCE.c -lm && ./%s_test\n */\n",
                name, EK_CC_TESTS, name, name);
    ek_text_add(out, "#include \"%s\"\n\n#include <math.h>\n#include <stdint.h>\n#include <stdio.h>\n\n", source->header_name);
    ek_text_add(out, "enum { INPUTS = %s_INPUTS, OUTPUTS = %s_OUTPUTS, TESTS = %d, EVERY = %lld, CHECKED = %lld };\n\n", upper, upper,
                EK_CC_TESTS, (long long)every, (long long)checked);
    ek_text_add(out, "static float in[INPUTS], out[OUTPUTS];\n");
    write_inputs(samples, out);
    ek_text_add(out, "/* Of each input every %lldth output. */\nstatic const float want[TESTS][CHECKED] = {\n", (long long)every);
    for (int t = 0; t < EK_CC_TESTS; t++) {
        ek_text_add(out, "    {");
        for (int64_t k = 0; k < checked; k++)
            ek_text_add(out, "%s%s", k == 0 ? "" : k % 8 ? ", " : ",\n     ", ek_cc_float(want[t * outputs + k * every], number));
        ek_text_add(out, "},\n");
    }
    ek_text_add(out, "};\n\nint main(void)\n{\n    int failed = 0;\n    float most = 0.0f;\n"
                     "    for (int t = 0; t < TESTS; t++) {\n        int largest;\n        make_input(t);\n"
                     "        largest = %s_predict(in, out);\n"
                     "        if (largest < 0 || largest >= OUTPUTS) failed++;\n"
                     "        for (int i = 0; i < CHECKED; i++) {\n"
                     "            const float off = fabsf(out[i * EVERY] - want[t][i]);\n"
                     "            if (off > most) most = off;\n"
                     "            if (off <= %s) continue;\n",
                name, ek_cc_float(tolerance, number));
    ek_text_add(out, "            if (failed++ < 10)\n"
                     "                printf(\"input %%d, output %%d: %%.9g instead of %%.9g\\n\", t, i * EVERY, (double)out[i * EVERY],\n"
                     "                       (double)want[t][i]);\n        }\n    }\n"
                     "    printf(\"%s: largest difference %%.3g, at most %s allowed: %%s\\n\", (double)most,\n"
                     "           failed ? \"FAILED\" : \"passed\");\n    return failed ? 1 : 0;\n}\n",
                name, ek_real_digits(tolerance, 3, number));
}
