/* What eight bits lose on data: the net in floats beside its whole numbers, which are those of the written source. */
#include "ccode/quantize.h"

#include "core/memory.h"

#include <math.h>

enum { BATCH = 64 };

typedef struct measuring {
    const ek_cc_plan *plan;
    const ek_cc_quantized *q;
    int64_t in, out;
    size_t words; /* of a thread's memory */
    int32_t *memory;
    float *x, *y, *z; /* inputs; outputs as floats, and of eight bits */
    int label[BATCH];
} measuring;

static void run_piece(void *argument, int64_t sample, int thread)
{
    const measuring *m = argument;
    ek_cc_int8_run(m->plan, m->q, m->memory + m->words * (size_t)thread, m->x + sample * m->in, m->z + sample * m->out);
}

static int largest(int64_t count, const float *y)
{
    int best = 0;
    for (int i = 1; i < count; i++) best = y[i] > y[best] ? i : best;
    return best;
}

/* Adds a batch to the counts in the answer. */
static void count_batch(const measuring *m, int64_t n, ek_c_answer *answer)
{
    for (int64_t i = 0; i < n; i++) {
        const float *y = m->y + i * m->out, *z = m->z + i * m->out;
        int a = largest(m->out, y), b = largest(m->out, z);
        answer->same_class += a == b;
        answer->accuracy += a == m->label[i];
        answer->int8_accuracy += b == m->label[i];
        for (int64_t k = 0; k < m->out; k++) answer->difference = fmax(answer->difference, fabs((double)y[k] - z[k]));
    }
}

static ek_status sweep(measuring *m, ek_net *net, const ek_c_options *o, ek_c_answer *answer)
{
    int64_t count = ek_dataset_count(o->test);
    for (int64_t at = 0; at < count; at += BATCH) {
        int64_t n = count - at < BATCH ? count - at : BATCH;
        for (int64_t i = 0; i < n; i++) EK_TRY(ek_dataset_item(o->test, at + i, m->x + i * m->in, &m->label[i]));
        EK_TRY(ek_net_forward(net, EK_MODE_INFERENCE, n, m->x, m->y));
        ek_pool_run(net->context->pool, n, run_piece, m);
        count_batch(m, n, answer);
        if (o->progress && !o->progress(o->user, 0.4 + 0.6 * (double)(at + n) / (double)count))
            return ek_fail(EK_E_INTERRUPTED, "stopped on request");
    }
    return EK_OK;
}

ek_status ek_cc_measure(ek_net *net, const ek_cc_plan *plan, const ek_cc_quantized *q, const ek_c_options *o, ek_c_answer *answer)
{
    measuring m = {.plan = plan, .q = q, .words = plan->words};
    double count = (double)ek_dataset_count(o->test);
    bool labels = ek_dataset_classes(o->test) > 0;
    m.in = ek_shape_count(ek_net_input_shape(net));
    m.out = ek_shape_count(ek_net_output_shape(net));
    ek_status status = EK_OK;
    EK_GO(EK_NEW(m.x, (size_t)(BATCH * m.in)));
    EK_GO(EK_NEW(m.y, (size_t)(BATCH * m.out)));
    EK_GO(EK_NEW(m.z, (size_t)(BATCH * m.out)));
    EK_GO(EK_NEW(m.memory, m.words * (size_t)ek_pool_threads(net->context->pool)));
    answer->difference = answer->same_class = answer->accuracy = answer->int8_accuracy = 0;
    EK_GO(sweep(&m, net, o, answer));
    answer->test_count = ek_dataset_count(o->test);
    answer->same_class /= count;
    answer->accuracy = labels ? answer->accuracy / count : NAN;
    answer->int8_accuracy = labels ? answer->int8_accuracy / count : NAN;
done:
    ek_free(m.memory);
    ek_free(m.z);
    ek_free(m.y);
    ek_free(m.x);
    return status;
}
