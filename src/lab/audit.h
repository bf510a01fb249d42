/* An audit under way: what its parts share. audit.c leads, audit_model.c looks at the model alone, audit_data.c
 * measures, audit_causes.c judges what was measured. */
#ifndef EK_LAB_AUDIT_H
#define EK_LAB_AUDIT_H

#include "core/text.h"
#include "formats/safetensors.h"
#include "lab/recalibrate.h"

/* One normalization with running statistics. */
typedef struct ek_norm_case {
    const ek_node *node;
    int layer, depth; /* its index in the graph */
    ek_batch_norm_options options;
    int64_t batches;
    double
        initial; /* what is left of the initial 0 and 1: (1-momentum)^batches; NaN where that says nothing */
    float *mean, *var; /* as in the model; the net's own are swapped. [channels] */
    int64_t channels;
    bool sound;         /* all of them finite, no variance negative */
    bool untouched;     /* all 0 and 1 */
    bool after_dropout; /* on some way through the net */
    int64_t ghost;      /* the smallest ghost batches before it on any way; 0: none */
    /* With data; all from the reference but for `data`. */
    ek_norm_stats inference, training, mended;
    ek_norm_stats data;
    double *mended_mean, *mended_var;
    bool mentioned; /* a finding explains why its statistics are wrong */
} ek_norm_case;

/* How often a set is gone through, and its samples. */
typedef struct ek_audit_set {
    const ek_dataset *dataset;
    int64_t *index, count;
} ek_audit_set;

struct ek_audit {
    ek_net *net;
    ek_audit_options options;
    char *model_name, *data_name, *train_name; /* quoted for a shell */
    bool onnx;         /* from an ONNX model */
    bool recalibrated;
    ek_norm_case *norm;
    ek_audit_layer *layer; /* what is shown of each norm */
    ek_norm_list norms;
    ek_finding *finding;
    int finding_count, finding_room;
    ek_audit_set data, reference;    /* the same set where no training data was given */
    bool apart;                      /* the reference is another set */
    ek_norm_stats input, data_input; /* what the net itself reads: of the reference, of the data */
    ek_audit_measured measured;
    bool has_measures;
    ek_work work;
};

/* Adds a finding. The texts are from ek_strf, taken over, NULL: memory ran out. channels: [count], copied. */
EK_MUST_CHECK ek_status ek_audit_add(ek_audit *audit, ek_severity severity, const char *code, int layer,
                                     const int *channels, int count, char *text, char *evidence, char *mend);
/* Whether such a finding is there, of this layer or (-1) of any. */
bool ek_audit_found(const ek_audit *audit, const char *code, int layer);
/* "evenkeel recalibrate MODEL --data DATA --out mended.safetensors", and more words after it. For ek_audit_add. */
char *ek_audit_recalibrate(const ek_audit *audit, const char *more);
/* The name of the data that the net was trained on, for commands. */
const char *ek_audit_training_data(const ek_audit *audit);

/* Lists like "channels 3, 5, 8 and 12 more": appends. */
void ek_audit_channels(ek_text *text, const int *channels, int count);

/* A sweep with the audit's own batch, net and progress. */
ek_sweep ek_audit_sweep(ek_audit *audit, const ek_audit_set *set, ek_mode mode);
/* Of the model's running statistics from these moments. */
ek_audit_distance ek_audit_running_distance(const ek_norm_case *norm, const ek_moments *from);
/* A distance from here on is one that can be felt: a tenth of a deviation. */
#define EK_AUDIT_FAR 0.1
/* Shares of the initial 0 and 1 in running statistics: from the first on (three time constants of the average) they count,
 * from the second on nothing can be right. */
#define EK_AUDIT_LEAST_INITIAL 0.05
#define EK_AUDIT_MOSTLY_INITIAL 0.2

EK_MUST_CHECK ek_status ek_audit_model(ek_audit *audit, const ek_safetensors *file);
EK_MUST_CHECK ek_status ek_audit_measure(ek_audit *audit);
EK_MUST_CHECK ek_status ek_audit_causes(ek_audit *audit);

#endif
