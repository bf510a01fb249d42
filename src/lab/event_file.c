/* A run as events for TensorBoard. */
#include "lab/observe.h"
#include "lab/quantiles.h"

#include "core/memory.h"

#include <stdio.h>
#include <string.h>

struct ek_event_file {
    ek_tfevents *events;
    float *values; /* room for one tensor, and to sort it */
    uint32_t *sort_room;
    int64_t room;
    double looked;    /* the step whose inputs were last added; 0: none */
    ek_status status; /* of the last flush */
};

ek_status ek_event_file_create(const char *folder, ek_event_file **out)
{
    if (!folder || !out)
        return ek_fail(EK_E_ARGUMENT, "ek_event_file_create needs a folder and a place for the file");
    ek_event_file *file;
    EK_TRY(EK_NEW(file, 1));
    ek_status status = ek_tfevents_create(folder, &file->events);
    if (status == EK_OK)
        *out = file;
    else
        ek_free(file);
    return status;
}

const char *ek_event_file_path(const ek_event_file *file) { return ek_tfevents_path(file->events); }

ek_status ek_event_file_close(ek_event_file *file, bool keep)
{
    if (!file) return EK_OK;
    ek_status status = ek_tfevents_close(file->events, !keep);
    ek_free(file->values);
    ek_free(file->sort_room);
    ek_free(file);
    return status;
}

static void add_step(ek_event_file *file, const ek_event *event)
{
    enum { MOST = 10000 };
    int64_t each = (event->steps + MOST - 1) / MOST;
    if (event->step % each && event->step != event->steps) return;
    ek_tfevents_scalar(file->events, event->step, "step/loss", event->loss);
    ek_tfevents_scalar(file->events, event->step, "step/learning_rate", event->lr);
}

static void add_measures(ek_event_file *file, const ek_event *e)
{
    const struct {
        const char *tag;
        double value;
    } all[] = {{"loss/train", e->train_loss},
               {"loss/valid", e->valid_loss},
               {"loss/test", e->test_loss},
               {"accuracy/train", e->train_accuracy},
               {"accuracy/valid", e->valid_accuracy},
               {"accuracy/test", e->test_accuracy},
               {"images_per_second", e->images_per_second}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        ek_tfevents_scalar(file->events, e->step, all[i].tag, all[i].value);
}

static ek_status reserve(ek_event_file *file, int64_t count)
{
    if (count <= file->room) return EK_OK;
    ek_free(file->values);
    ek_free(file->sort_room);
    file->sort_room = NULL;
    file->room = 0;
    EK_TRY(EK_NEW(file->values, (size_t)count));
    EK_TRY(EK_NEW(file->sort_room, (size_t)(2 * count)));
    file->room = count;
    return EK_OK;
}

/* The tag begins with what it is, by which TensorBoard groups: "gamma/net.1". */
static const char *group_of(ek_role role)
{
    switch (role) {
    case EK_ROLE_GAMMA: return "gamma";
    case EK_ROLE_BETA: return "beta";
    case EK_ROLE_RUNNING_MEAN: return "running_mean";
    case EK_ROLE_RUNNING_VAR: return "running_var";
    default: return NULL;
    }
}

static void add_histogram(ek_event_file *file, int64_t step, const char *group, const char *label,
                          const ek_histogram *histogram)
{
    char tag[EK_LABEL_MAX + 32];
    snprintf(tag, sizeof tag, "%s/%s", group, label);
    ek_tfevents_histogram(file->events, step, tag, histogram);
}

static ek_status add_param(ek_event_file *file, int64_t step, const char *label, const ek_param *param)
{
    ek_histogram histogram;
    if (!group_of(param->role)) return EK_OK;
    EK_TRY(reserve(file, param->count));
    memcpy(file->values, param->data, (size_t)param->count * sizeof *param->data);
    ek_histogram_fill(&histogram, file->values, ek_sort_finite(file->values, param->count, file->sort_room));
    add_histogram(file, step, group_of(param->role), label, &histogram);
    return EK_OK;
}

static ek_status add_norms(ek_event_file *file, int64_t step, const ek_net *net)
{
    for (int i = 0; i < net->graph.count; i++) {
        const ek_node *node = &net->graph.node[i];
        for (int k = 0; k < node->param_count; k++)
            EK_TRY(add_param(file, step, node->label, &node->param[k]));
    }
    return EK_OK;
}

/* An epoch may be shorter than the way from one look to the next. */
static void add_inputs(ek_event_file *file, const ek_seen *seen)
{
    double step = seen->look ? seen->at[seen->look - 1] : 0;
    if (step == file->looked) return;
    file->looked = step;
    for (int i = 0; i < seen->norms; i++)
        add_histogram(file, (int64_t)step, "inputs", seen->norm[i].label, &seen->norm[i].inputs);
}

ek_status ek_event_file_add(ek_event_file *file, const ek_event *event, const ek_net *net,
                            const ek_observer *observer)
{
    if (!file || !event || !net)
        return ek_fail(EK_E_ARGUMENT, "ek_event_file_add needs a file, an event and a net");
    if (file->status != EK_OK) return ek_tfevents_flush(file->events);
    if (event->kind == EK_EVENT_STEP) add_step(file, event);
    if (event->kind != EK_EVENT_EPOCH) return EK_OK;
    add_measures(file, event);
    EK_TRY(add_norms(file, event->step, net));
    if (observer) add_inputs(file, ek_seen_of(observer));
    return file->status = ek_tfevents_flush(file->events);
}
