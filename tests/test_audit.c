/* Audits of healthy models and of models with one sickness planted each, and the statistics that mend them. */
#include "testing.h"

#include "core/random.h"
#include "core/text.h"
#include "data/dataset.h"
#include "formats/safetensors.h"
#include "graph/net.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char mlp_text[] = "input 20\n"
                               "fc1: linear 32\n"
                               "bn1: batchnorm%s\n"
                               "     relu\n%s"
                               "fc2: linear 32\n"
                               "bn2: batchnorm%s\n"
                               "     relu\n"
                               "fc3: linear 10\n";

static const char conv_text[] = "input 1x10x10\n"
                                "c1: conv 8 kernel=3 padding=1\n"
                                "b1: batchnorm%s\n"
                                "s1: relu\n%s"
                                "c2: conv 8 kernel=3 padding=1\n"
                                "b2: batchnorm%s\n"
                                "    add s1\n"
                                "    relu\n"
                                "    avgpool 2\n"
                                "    flatten\n"
                                "f1: linear 16\n"
                                "b3: batchnorm\n"
                                "    relu\n"
                                "f2: linear 10\n";

static ek_context *context;
static char folder[] = "/tmp/evenkeel-audit-XXXXXX";
static char model_path[sizeof folder + 32], mended_path[sizeof folder + 32];
static ek_dataset *features, *features_test, *images, *images_test;

static ek_dataset *open_data(const char *spec, ek_split split, int64_t count)
{
    ek_dataset *made;
    assert_ok(ek_dataset_open(spec, split, &made));
    if (count < made->count) made->count = count;
    return made;
}

static int begin(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(model_path, sizeof model_path, "%s/model.safetensors", folder);
    snprintf(mended_path, sizeof mended_path, "%s/mended.safetensors", folder);
    ek_context_options o = ek_context_options_default();
    o.threads = 2;
    assert_ok(ek_context_create(&o, &context));
    features = open_data("synthetic:20", EK_SPLIT_TRAIN, 8000);
    features_test = open_data("synthetic:20", EK_SPLIT_TEST, 2000);
    images = open_data("synthetic:1x10x10", EK_SPLIT_TRAIN, 4000);
    images_test = open_data("synthetic:1x10x10", EK_SPLIT_TEST, 1000);
    return 0;
}

static int end(void **state)
{
    (void)state;
    ek_dataset_destroy(features);
    ek_dataset_destroy(features_test);
    ek_dataset_destroy(images);
    ek_dataset_destroy(images_test);
    ek_context_destroy(context);
    unlink(model_path);
    unlink(mended_path);
    return rmdir(folder); /* fails where something was left behind */
}

/* --- models */

typedef struct recipe {
    const char *text, *options, *between; /* of the batchnorms; lines between the first and the second half */
    int64_t batch, epochs;
    double lr;
    ek_schedule schedule;
    int64_t samples; /* 0: all */
} recipe;

static bool is_mlp(const recipe *r) { return r->text == mlp_text; }
static ek_dataset *train_of(const recipe *r) { return is_mlp(r) ? features : images; }
static ek_dataset *test_of(const recipe *r) { return is_mlp(r) ? features_test : images_test; }

static void train_net(ek_net *net, const recipe *r)
{
    ek_train_options o = ek_train_options_default();
    o.epochs = r->epochs;
    o.batch = r->batch;
    o.optimizer.lr = r->lr;
    o.schedule = r->schedule;
    ek_dataset part = *train_of(r);
    if (r->samples) part.count = r->samples;
    assert_ok(ek_train(net, &part, NULL, &o));
}

static ek_net *train_model(const recipe *r)
{
    char text[1024];
    const char *options = r->options ? r->options : "";
    snprintf(text, sizeof text, r->text, options, r->between ? r->between : "", options);
    ek_net *net;
    assert_ok(ek_net_create(context, text, NULL, &net));
    train_net(net, r);
    assert_ok(ek_net_save(net, model_path));
    return net;
}

static const recipe healthy_mlp = {mlp_text, NULL, NULL, 64, 4, 0.1, EK_SCHEDULE_COSINE, 0};
static const recipe healthy_conv = {conv_text, NULL, NULL, 64, 4, 0.1, EK_SCHEDULE_COSINE, 0};

/* --- planting: a file's tensors and texts, changed and written again */

typedef struct plant {
    ek_safetensors file;
} plant;

static plant dig(void)
{
    plant p;
    assert_ok(ek_safetensors_read(model_path, &p.file));
    return p;
}

/* The numbers of a tensor, to be written to. */
static float *floats(const plant *p, const char *name)
{
    const ek_st_tensor *tensor = ek_safetensors_find(&p->file, name);
    assert_non_null(tensor);
    return (float *)(void *)tensor->bytes; /* the writer aligns them */
}

static void set_count(const plant *p, const char *name, int64_t count)
{
    memcpy((void *)ek_safetensors_find(&p->file, name)->bytes, &count, sizeof count);
}

/* The running statistics of another mlp. */
static void put_statistics(const plant *p, const ek_net *other)
{
    static const char *const names[] = {"bn1.running_mean", "bn1.running_var", "bn2.running_mean",
                                        "bn2.running_var"};
    for (int i = 0; i < 4; i++) {
        ek_tensor from;
        assert_ok(ek_net_find_tensor(other, names[i], &from));
        memcpy(floats(p, names[i]), from.data, 32 * sizeof(float));
    }
}

static void write_plant(plant *p, const char *net_text)
{
    ek_st_writer writer = {0};
    for (int i = 0; i < p->file.count; i++) {
        const ek_st_tensor *t = &p->file.tensor[i];
        assert_ok(ek_st_add(&writer, t->name, t->dtype, t->rank, t->dim, t->bytes));
    }
    for (int i = 0; i < p->file.metadata_count; i++)
        assert_ok(ek_st_add_metadata(&writer, p->file.metadata[i].key, p->file.metadata[i].value));
    if (net_text) assert_ok(ek_st_add_metadata(&writer, "evenkeel.net", net_text));
    assert_ok(ek_st_write(&writer, model_path));
    ek_st_writer_free(&writer);
    ek_safetensors_free(&p->file);
}

/* --- audits */

static ek_audit *examine(const ek_dataset *data, const ek_dataset *train)
{
    ek_audit_options o = ek_audit_options_default();
    o.data = data;
    o.train = train;
    ek_audit *audit;
    assert_ok(ek_audit_create(context, model_path, &o, &audit));
    return audit;
}

static const ek_finding *find(const ek_audit *audit, const char *code)
{
    for (int i = 0; i < ek_audit_finding_count(audit); i++) {
        if (!strcmp(ek_audit_finding(audit, i)->code, code)) return ek_audit_finding(audit, i);
    }
    return NULL;
}

/* The codes found, each once, at least as severe as `least`: "a b". */
static void codes_of(const ek_audit *audit, ek_severity least, char *out, size_t size)
{
    *out = '\0';
    for (int i = 0; i < ek_audit_finding_count(audit); i++) {
        const ek_finding *f = ek_audit_finding(audit, i);
        assert_true(*f->text && *f->evidence && *f->mend);
        if (f->severity < least || strstr(out, f->code)) continue;
        size_t used = strlen(out);
        snprintf(out + used, size - used, "%s%s", used ? " " : "", f->code);
    }
}

static void assert_codes(const ek_audit *audit, ek_severity least, const char *expected)
{
    char codes[512];
    codes_of(audit, least, codes, sizeof codes);
    if (!strcmp(codes, expected)) return;
    for (int i = 0; i < ek_audit_finding_count(audit); i++) {
        const ek_finding *f = ek_audit_finding(audit, i);
        print_message("%d %s %s: %s; %s\n", (int)f->severity, f->code, f->label, f->text, f->evidence);
    }
    fail_msg("found '%s', expected '%s'", codes, expected);
}

/* With the training data beside it and alone: only these, from warnings on. */
static void assert_sick(const recipe *r, const char *with_data, const char *alone)
{
    ek_audit *audit = examine(test_of(r), train_of(r));
    assert_codes(audit, EK_SEVERITY_WARNING, with_data);
    ek_audit_destroy(audit);
    audit = examine(NULL, NULL);
    assert_codes(audit, EK_SEVERITY_WARNING, alone);
    ek_audit_destroy(audit);
}

/* What the audit proposes restores the accuracy of the data's own statistics, and leaves nothing to find. */
static void assert_recalibrates(const recipe *r)
{
    ek_net *net;
    ek_metrics before, after;
    assert_ok(ek_net_open_sick(context, model_path, &net));
    assert_ok(ek_evaluate(net, test_of(r), 128, &before));
    assert_ok(ek_recalibrate(net, train_of(r), NULL));
    assert_ok(ek_evaluate(net, test_of(r), 128, &after));
    assert_true(after.accuracy > 0.6 && !(before.accuracy > after.accuracy + 0.01));
    assert_ok(ek_net_save(net, model_path));
    ek_net_destroy(net);
    ek_audit *audit = examine(test_of(r), train_of(r));
    assert_codes(audit, EK_SEVERITY_NOTE, "");
    ek_audit_destroy(audit);
}

/* --- the healthy */

static void assert_healthy(const recipe *r)
{
    ek_audit *audit = examine(test_of(r), train_of(r));
    assert_codes(audit, EK_SEVERITY_NOTE, "");
    const ek_audit_measured *m = ek_audit_measures(audit);
    assert_non_null(m);
    assert_true(m->as_is.accuracy > 0.45 && fabs(m->as_is.accuracy - m->mended.accuracy) < 0.02);
    ek_audit_destroy(audit);
    audit = examine(test_of(r), NULL);
    assert_codes(audit, EK_SEVERITY_NOTE, "");
    ek_audit_destroy(audit);
    audit = examine(NULL, NULL);
    assert_codes(audit, EK_SEVERITY_NOTE, "");
    ek_audit_destroy(audit);
}

static void healthy_models(void **state)
{
    (void)state;
    ek_net_destroy(train_model(&healthy_mlp));
    assert_healthy(&healthy_mlp);

    ek_net *net = train_model(&healthy_conv);
    assert_healthy(&healthy_conv);

    /* Recalibrated, with a momentum that its few batches could not have served. */
    assert_ok(ek_recalibrate(net, images, NULL));
    assert_ok(ek_net_save(net, model_path));
    plant p = dig();
    char text[1024];
    snprintf(text, sizeof text, conv_text, " momentum=0.01", "", " momentum=0.01");
    write_plant(&p, text);
    assert_healthy(&healthy_conv);
    ek_net_destroy(net);

    /* Trained, then frozen and trained on: the statistics hold for the small steps that follow. */
    ek_net_destroy(train_model(&healthy_mlp));
    p = dig();
    snprintf(text, sizeof text, mlp_text, " frozen=true", "", " frozen=true");
    write_plant(&p, text);
    assert_ok(ek_net_open(context, model_path, &net));
    recipe on = healthy_mlp;
    on.epochs = 1;
    on.lr = 0.005;
    train_net(net, &on);
    assert_ok(ek_net_save(net, model_path));
    ek_net_destroy(net);
    assert_healthy(&healthy_mlp);

    /* The average of all batches after the biased convention, without scale. */
    recipe plain = healthy_mlp;
    plain.options = " unbiased=false scale=false";
    ek_net_destroy(train_model(&plain));
    assert_healthy(&plain);
}

/* --- the sick: values */

static void sick_values(void **state)
{
    (void)state;
    const recipe *r = &healthy_mlp;
    ek_net_destroy(train_model(r));
    /* A running variance that is not finite: eval refuses the model and names the audit, recalibration mends it. */
    plant p = dig();
    floats(&p, "bn1.running_var")[3] = NAN;
    write_plant(&p, NULL);
    ek_net *net;
    assert_fails(EK_E_NUMERIC, "evenkeel audit", ek_net_open(context, model_path, &net));
    assert_sick(r, "statistics-not-finite", "statistics-not-finite");
    assert_recalibrates(r);

    ek_net_destroy(train_model(r));
    p = dig();
    floats(&p, "bn2.running_var")[7] = -0.01f;
    write_plant(&p, NULL);
    assert_fails(EK_E_NUMERIC, "evenkeel audit", ek_net_open(context, model_path, &net));
    assert_sick(r, "negative-variance", "negative-variance");
    assert_recalibrates(r);

    ek_net_destroy(train_model(r));
    p = dig();
    floats(&p, "fc2.weight")[100] = INFINITY;
    write_plant(&p, NULL);
    assert_sick(r, "weights-not-finite", "weights-not-finite");

    /* Finite, but what it makes of anything is not: behind the last normalization, where only the loss tells. */
    ek_net_destroy(train_model(r));
    p = dig();
    for (int i = 0; i < 320; i++) floats(&p, "fc3.weight")[i] = 3e38f;
    write_plant(&p, NULL);
    assert_sick(r, "activations-not-finite", "");

    ek_net_destroy(train_model(r));
    p = dig();
    set_count(&p, "bn1.num_batches_tracked", -5);
    write_plant(&p, NULL);
    assert_fails(EK_E_NUMERIC, "evenkeel audit", ek_net_open(context, model_path, &net));
    assert_sick(r, "count-impossible", "count-impossible");
    assert_recalibrates(r);

    ek_net_destroy(train_model(r));
    p = dig();
    for (int i = 0; i < 12; i++) floats(&p, "fc3.weight")[i] = 3e-40f;
    write_plant(&p, NULL);
    assert_sick(r, "subnormal-weights", "subnormal-weights");
    ek_audit *audit = examine(NULL, NULL);
    assert_non_null(strstr(find(audit, "subnormal-weights")->evidence, "fc3.weight: 12 of 320"));
    ek_audit_destroy(audit);
}

/* --- channels, gains and eps */

static void sick_channels(void **state)
{
    (void)state;
    const recipe *r = &healthy_mlp;
    ek_net_destroy(train_model(r));
    plant p = dig();
    floats(&p, "bn2.weight")[4] = 0;
    floats(&p, "bn2.weight")[30] = 1e-7f;
    write_plant(&p, NULL);
    assert_sick(r, "dead-channel", "dead-channel");
    ek_audit *audit = examine(NULL, NULL);
    const ek_finding *f = find(audit, "dead-channel");
    assert_int_equal(f->channel_count, 2);
    assert_int_equal(f->channels[0], 4);
    assert_int_equal(f->channels[1], 30);
    assert_string_equal(f->label, "bn2");
    ek_audit_destroy(audit);

    ek_net_destroy(train_model(r));
    p = dig();
    floats(&p, "bn1.running_var")[9] *= 1e-5f;
    write_plant(&p, NULL);
    assert_sick(r, "gain-outlier", "gain-outlier");
    audit = examine(NULL, NULL);
    f = find(audit, "gain-outlier");
    assert_true(f->channel_count == 1 && f->channels[0] == 9);
    ek_audit_destroy(audit);
    assert_recalibrates(r);

    ek_net_destroy(train_model(r));
    p = dig();
    char text[1024];
    snprintf(text, sizeof text, mlp_text, " eps=1", "", " eps=1");
    write_plant(&p, text);
    assert_sick(r, "eps-does-not-fit", "eps-does-not-fit");
}

/* A feature that is always 0, before a normalization of the input. */
static void constant_input(void **state)
{
    (void)state;
    ek_dataset *train = open_data("synthetic:20", EK_SPLIT_TRAIN, 4000);
    ek_dataset *test = open_data("synthetic:20", EK_SPLIT_TEST, 1000);
    for (int64_t i = 0; i < train->count; i++) train->floats[i * 20 + 5] = 0;
    for (int64_t i = 0; i < test->count; i++) test->floats[i * 20 + 5] = 0;
    ek_net *net;
    ek_train_options o = ek_train_options_default();
    o.epochs = 3;
    o.batch = 64;
    o.schedule = EK_SCHEDULE_COSINE;
    assert_ok(ek_net_create(
        context, "input 20\nbn0: batchnorm\nfc1: linear 32\nbn1: batchnorm\nrelu\nfc2: linear 10\n", NULL,
        &net));
    assert_ok(ek_train(net, train, NULL, &o));
    assert_ok(ek_net_save(net, model_path));
    ek_net_destroy(net);
    ek_audit *audit = examine(test, train);
    assert_codes(audit, EK_SEVERITY_WARNING, "constant-channel");
    const ek_finding *f = find(audit, "constant-channel");
    assert_true(f->channel_count == 1 && f->channels[0] == 5 && !strcmp(f->label, "bn0"));
    ek_audit_destroy(audit);
    ek_dataset_destroy(train);
    ek_dataset_destroy(test);
}

/* --- statistics that were lost, or never there */

static void reset_statistics(const plant *p, bool count_too)
{
    static const char *const layers[] = {"bn1", "bn2"};
    for (int i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.running_mean", layers[i]);
        for (int c = 0; c < 32; c++) floats(p, name)[c] = 0;
        snprintf(name, sizeof name, "%s.running_var", layers[i]);
        for (int c = 0; c < 32; c++) floats(p, name)[c] = 1;
        snprintf(name, sizeof name, "%s.num_batches_tracked", layers[i]);
        if (count_too) set_count(p, name, 0);
    }
}

static void untouched(void **state)
{
    (void)state;
    const recipe *r = &healthy_mlp;
    static const char *const why[] = {"so they were lost afterwards", "the statistics were left behind"};
    for (int count_too = 0; count_too < 2; count_too++) {
        ek_net_destroy(train_model(r));
        plant p = dig();
        reset_statistics(&p, count_too);
        write_plant(&p, NULL);
        assert_sick(r, "untouched-statistics", "untouched-statistics");
        ek_audit *audit = examine(NULL, NULL);
        assert_int_equal(find(audit, "untouched-statistics")->severity, EK_SEVERITY_ERROR);
        assert_non_null(strstr(find(audit, "untouched-statistics")->evidence, why[count_too]));
        ek_audit_destroy(audit);
        assert_recalibrates(r);
    }
    ek_net *net;
    char text[1024];
    snprintf(text, sizeof text, mlp_text, "", "", "");
    assert_ok(ek_net_create(context, text, NULL, &net));
    assert_ok(ek_net_save(net, model_path));
    ek_net_destroy(net);
    assert_sick(r, "untouched-statistics", "untouched-statistics");
    ek_audit *audit = examine(NULL, NULL);
    assert_non_null(strstr(find(audit, "untouched-statistics")->evidence, "never trained"));
    ek_audit_destroy(audit);

    recipe zero = healthy_mlp;
    zero.options = " momentum=0";
    ek_net_destroy(train_model(&zero));
    assert_sick(&zero, "untouched-statistics momentum-zero", "untouched-statistics momentum-zero");

    /* No running statistics at all. */
    recipe none = healthy_conv;
    none.options = " track=false";
    ek_net_destroy(train_model(&none));
    assert_sick(&none, "no-running-statistics", "no-running-statistics");
}

/* The count of another program: worth a note, and nothing more. */
static void notes(void **state)
{
    (void)state;
    const recipe *r = &healthy_mlp;
    ek_net_destroy(train_model(r));
    plant p = dig();
    set_count(&p, "bn1.num_batches_tracked", 0);
    for (int c = 0; c < 32; c++) {
        floats(&p, "fc1.bias")[c] = 0.25f;
        floats(&p, "bn1.running_mean")[c] += 0.25f;
    }
    write_plant(&p, NULL);
    assert_sick(r, "", "");
    ek_audit *audit = examine(features_test, features);
    assert_codes(audit, EK_SEVERITY_NOTE, "redundant-bias count-zero");
    assert_string_equal(find(audit, "redundant-bias")->label, "fc1");
    ek_audit_destroy(audit);
}

/* --- statistics that were badly taken */

static void momentum_and_batch(void **state)
{
    (void)state;
    recipe r = {mlp_text, " momentum=0.0003", NULL, 4, 1, 0.02, EK_SCHEDULE_CONSTANT, 4000};
    ek_net_destroy(train_model(&r));
    assert_sick(&r, "not-converged", "not-converged");
    ek_audit *audit = examine(features_test, features);
    const ek_audit_measured *m = ek_audit_measures(audit);
    assert_true(m->as_is.accuracy < m->mended.accuracy - 0.02 &&
                m->training_mode.accuracy > m->as_is.accuracy + 0.02);
    assert_int_equal(find(audit, "not-converged")->severity, EK_SEVERITY_ERROR);
    assert_non_null(strstr(find(audit, "not-converged")->mend, "evenkeel recalibrate"));
    double shares = 0;
    for (int i = 0; i < ek_audit_layer_count(audit); i++) shares += ek_audit_layer_at(audit, i)->share;
    assert_true(fabs(shares - 1) < 1e-9);
    ek_audit_destroy(audit);
    assert_recalibrates(&r);

    /* The statistics of 1 epoch's weights, as a slow average has them, in the model of 7. */
    r = (recipe){mlp_text, " momentum=0.004", NULL, 64, 1, 0.02, EK_SCHEDULE_CONSTANT, 0};
    ek_net *net = train_model(&r), *early;
    assert_ok(ek_net_open(context, model_path, &early));
    assert_ok(ek_recalibrate(early, features, NULL));
    r.epochs = 6;
    r.lr = 0.3;
    train_net(net, &r);
    assert_ok(ek_net_save(net, model_path));
    plant p = dig();
    put_statistics(&p, early);
    set_count(&p, "bn1.num_batches_tracked", 1000);
    set_count(&p, "bn2.num_batches_tracked", 1000);
    write_plant(&p, NULL);
    ek_net_destroy(early);
    ek_net_destroy(net);
    assert_sick(&r, "momentum-too-small", "");
    assert_recalibrates(&r);

    r = (recipe){mlp_text, " momentum=0.99", NULL, 16, 2, 0.05, EK_SCHEDULE_CONSTANT, 0};
    ek_net_destroy(train_model(&r));
    assert_sick(&r, "momentum-convention", "momentum-convention");

    r = (recipe){mlp_text, " momentum=0.7", NULL, 4, 1, 0.02, EK_SCHEDULE_CONSTANT, 0};
    ek_net_destroy(train_model(&r));
    assert_sick(&r, "momentum-too-large", "");
    assert_recalibrates(&r);

    r = (recipe){mlp_text, NULL, NULL, 3, 1, 0.01, EK_SCHEDULE_CONSTANT, 0};
    ek_net_destroy(train_model(&r));
    assert_sick(&r, "batch-too-small", "");

    r = (recipe){mlp_text, NULL, "dropout 0.5\n", 64, 4, 0.1, EK_SCHEDULE_COSINE, 0};
    ek_net_destroy(train_model(&r));
    assert_sick(&r, "dropout-shift", "");

    r = (recipe){mlp_text, " ghost=2", NULL, 64, 4, 0.1, EK_SCHEDULE_COSINE, 0};
    ek_net_destroy(train_model(&r));
    assert_sick(&r, "ghost-too-small", "");
}

/* Statistics that are not of these weights. */
static void other_weights(void **state)
{
    (void)state;
    const recipe *r = &healthy_mlp;
    ek_net *other = train_model(r), *net;
    char text[1024];
    snprintf(text, sizeof text, mlp_text, "", "", "");
    assert_ok(ek_net_create(context, text, NULL, &net));
    assert_ok(ek_net_init(net, EK_INIT_DEFAULT, 77));
    train_net(net, r);
    assert_ok(ek_net_save(net, model_path));
    plant p = dig();
    put_statistics(&p, other);
    write_plant(&p, NULL);
    ek_net_destroy(net);
    ek_net_destroy(other);
    assert_sick(r, "foreign-statistics", "");
    assert_recalibrates(r);

    /* The same where the layers are frozen. */
    ek_net_destroy(train_model(r));
    p = dig();
    snprintf(text, sizeof text, mlp_text, " frozen=true", "", " frozen=true");
    for (int c = 0; c < 16; c++) { /* every channel that of another */
        float *mean = floats(&p, "bn2.running_mean"), kept = mean[c];
        mean[c] = mean[31 - c];
        mean[31 - c] = kept;
    }
    write_plant(&p, text);
    assert_sick(r, "frozen-statistics", "");
}

/* --- data of another kind */

static void other_data(void **state)
{
    (void)state;
    const recipe *r = &healthy_mlp;
    ek_net_destroy(train_model(r));
    ek_dataset *there = open_data("synthetic:20", EK_SPLIT_TEST, 2000);
    for (int64_t i = 0; i < there->count; i++) {
        there->floats[i * 20 + 3] = there->floats[i * 20 + 3] * 0.5f + 4;
        there->floats[i * 20 + 8] = there->floats[i * 20 + 8] * 0.5f - 4;
    }
    ek_audit *audit = examine(there, features);
    assert_codes(audit, EK_SEVERITY_WARNING, "domain-shift");
    const ek_finding *f = find(audit, "domain-shift");
    assert_string_equal(f->label, "bn1");
    assert_true(f->channel_count > 4);
    const ek_audit_measured *m = ek_audit_measures(audit);
    assert_true(m->adapted.accuracy > m->as_is.accuracy + 0.02);
    ek_audit_destroy(audit);
    /* Without the training data it cannot be told from statistics of something else. */
    audit = examine(there, NULL);
    assert_codes(audit, EK_SEVERITY_WARNING, "foreign-statistics");
    ek_audit_destroy(audit);
    ek_dataset_destroy(there);

    /* All inputs on another scale. */
    ek_dataset *train = open_data("synthetic:20", EK_SPLIT_TRAIN, 4000);
    for (int64_t i = 0; i < train->count * 20; i++) train->floats[i] *= 20;
    audit = examine(train, NULL);
    assert_non_null(find(audit, "foreign-statistics"));
    assert_non_null(strstr(find(audit, "foreign-statistics")->evidence, "inputs on another scale"));
    ek_audit_destroy(audit);
    ek_dataset_destroy(train);
}

/* --- new statistics */

/* A set of 70 samples in batches of 32, 32 and 6 gives the moments of its 70*36 values a channel, in double. */
static void recalibrated_exactly(void **state)
{
    (void)state;
    enum { SAMPLES = 70, PLANE = 36, CHANNELS = 3 };
    static const char *const texts[] = {
        "input 3x6x6\nb: batchnorm\nflatten\nlinear 2\n",
        "input 3x6x6\nb: batchnorm unbiased=false momentum=none scale=false shift=false\n"};
    float x[SAMPLES * CHANNELS * PLANE];
    ek_random random = ek_random_start(5, EK_STREAM_TEST, 0);
    for (int i = 0; i < SAMPLES * CHANNELS * PLANE; i++) {
        int sample = i / (CHANNELS * PLANE), c = i / PLANE % CHANNELS;
        /* Batches differ in their means, and a mean is far above its deviation. */
        x[i] = (float)(100.0 * c + (sample >= 64 ? 5 : 0) + ek_random_normal(&random));
    }
    ek_dataset data = {.count = SAMPLES, .shape = {3, {3, 6, 6}}, .item = CHANNELS * PLANE, .floats = x};
    for (int t = 0; t < 2; t++) {
        ek_net *net;
        ek_tensor mean, var, count;
        assert_ok(ek_net_create(context, texts[t], NULL, &net));
        ek_recalibrate_options o = ek_recalibrate_options_default();
        o.batch = 32;
        assert_ok(ek_recalibrate(net, &data, &o));
        assert_ok(ek_net_find_tensor(net, "b.running_mean", &mean));
        assert_ok(ek_net_find_tensor(net, "b.running_var", &var));
        assert_ok(ek_net_find_tensor(net, "b.num_batches_tracked", &count));
        assert_int_equal(*count.counter, 3);
        for (int c = 0; c < CHANNELS; c++) {
            double sum = 0, squares = 0, m = SAMPLES * PLANE;
            for (int i = 0; i < SAMPLES * PLANE; i++)
                sum += x[(i / PLANE * CHANNELS + c) * PLANE + i % PLANE];
            for (int i = 0; i < SAMPLES * PLANE; i++)
                squares += pow(x[(i / PLANE * CHANNELS + c) * PLANE + i % PLANE] - sum / m, 2);
            double v = squares / (t == 0 ? m - 1 : m);
            assert_true(fabs(mean.data[c] - sum / m) <= 1e-6 * fmax(1, fabs(sum / m)));
            assert_true(fabs(var.data[c] - v) <= 1e-6 * v);
        }
        /* A third of the way from these to those of the same data, 2 higher. */
        float before = mean.data[1], spread = var.data[1];
        for (int i = 0; i < SAMPLES * CHANNELS * PLANE; i++) x[i] += 2;
        o.blend = 1.0 / 3;
        assert_ok(ek_recalibrate(net, &data, &o));
        assert_true(fabs(mean.data[1] - (before + 2.0 / 3)) < 1e-4 && fabs(var.data[1] - spread) < 1e-4);
        ek_net_destroy(net);
        for (int i = 0; i < SAMPLES * CHANNELS * PLANE; i++) x[i] -= 2;
    }
}

static bool stop_later(void *user, double share)
{
    (void)user;
    return share < 0.7;
}

static void assert_same_statistics(const ek_net *a, const ek_net *b)
{
    for (int i = 0; i < ek_net_tensor_count(a); i++) {
        ek_tensor x = ek_net_tensor(a, i), y = ek_net_tensor(b, i);
        if (x.counter)
            assert_int_equal(*x.counter, *y.counter);
        else
            assert_memory_equal(x.data, y.data, (size_t)ek_shape_count(x.shape) * sizeof(float));
    }
}

/* Stopped or refused, the net is as it was. */
static void recalibration_refused(void **state)
{
    (void)state;
    ek_net *net = train_model(&healthy_mlp), *same, *bare;
    assert_ok(ek_net_open(context, model_path, &same));
    ek_recalibrate_options o = ek_recalibrate_options_default();
    o.progress = stop_later;
    assert_fails(EK_E_INTERRUPTED, "stopped", ek_recalibrate(net, features, &o));
    assert_same_statistics(net, same);
    o = ek_recalibrate_options_default();
    o.blend = 0;
    assert_fails(EK_E_ARGUMENT, "blend", ek_recalibrate(net, features, &o));
    assert_fails(EK_E_SHAPE, "items are 1x10x10", ek_recalibrate(net, images, NULL));
    ek_dataset one = *features;
    one.count = 1;
    assert_fails(EK_E_SHAPE, "bn1 has one value a channel", ek_recalibrate(net, &one, NULL));
    assert_same_statistics(net, same);

    ek_tensor weight;
    assert_ok(ek_net_find_tensor(net, "fc2.weight", &weight));
    weight.data[3] = INFINITY;
    assert_fails(EK_E_NUMERIC, "what bn2 reads is not finite in channel 0",
                 ek_recalibrate(net, features, NULL));
    ek_tensor kept;
    assert_ok(ek_net_find_tensor(same, "fc2.weight", &kept));
    weight.data[3] = kept.data[3];
    assert_same_statistics(net, same);
    ek_net_destroy(net);
    ek_net_destroy(same);

    assert_ok(ek_net_create(context, "input 20\nlinear 10\n", NULL, &bare));
    assert_fails(EK_E_ARGUMENT, "nothing to recalibrate", ek_recalibrate(bare, features, NULL));
    ek_net_destroy(bare);
}

/* --- the same for all */

/* Every figure of an audit of the model at model_path, by this context. */
static int figures(ek_context *by, const ek_dataset *data, const ek_dataset *train, double *out)
{
    ek_audit_options o = ek_audit_options_default();
    o.data = data;
    o.train = train;
    o.samples = 300;
    ek_audit *audit;
    assert_ok(ek_audit_create(by, model_path, &o, &audit));
    const ek_audit_measured *m = ek_audit_measures(audit);
    int n = 0;
    out[n++] = m->as_is.loss;
    out[n++] = m->training_mode.loss;
    out[n++] = m->mended.loss;
    out[n++] = m->output_change;
    for (int i = 0; i < ek_audit_layer_count(audit); i++) {
        const ek_audit_layer *l = ek_audit_layer_at(audit, i);
        out[n++] = l->mended.mean;
        out[n++] = l->mended.var;
        out[n++] = l->training.var;
        out[n++] = l->inference.var;
        out[n++] = l->shift.mean;
        out[n++] = l->swapped.loss;
        out[n++] = l->mean[1];
        out[n++] = l->var[1];
    }
    ek_audit_destroy(audit);
    return n;
}

static void same_for_any_threads(void **state)
{
    (void)state;
    enum { MOST = 64 };
    double one[MOST], three[MOST], reference[MOST];
    ek_context *by[3];
    const ek_context_options options[3] = {{.threads = 1}, {.threads = 3}, {.threads = 1, .isa = "reference"}};
    for (int i = 0; i < 3; i++) assert_ok(ek_context_create(&options[i], &by[i]));
    ek_net_destroy(train_model(&healthy_conv));
    int n = figures(by[0], images_test, images, one);
    figures(by[1], images_test, images, three);
    figures(by[2], images_test, images, reference);
    assert_memory_equal(one, three, (size_t)n * sizeof *one);
    for (int i = 0; i < n; i++) assert_true(fabs(one[i] - reference[i]) <= 1e-4 * fmax(1, fabs(one[i])));
    for (int i = 0; i < 3; i++) ek_context_destroy(by[i]);
}

/* Data without labels: the change of the outputs takes the place of the loss. */
static void without_labels(void **state)
{
    (void)state;
    ek_dataset bare = *features_test;
    bare.label = NULL;
    ek_net_destroy(train_model(&healthy_mlp));
    plant p = dig();
    reset_statistics(&p, false);
    write_plant(&p, NULL);
    ek_audit *audit = examine(&bare, NULL);
    const ek_audit_measured *m = ek_audit_measures(audit);
    assert_true(isnan(m->as_is.loss) && isnan(m->mended.accuracy) && m->decided_otherwise > 0.05);
    assert_codes(audit, EK_SEVERITY_WARNING, "untouched-statistics");
    double shares = 0;
    for (int i = 0; i < ek_audit_layer_count(audit); i++) shares += ek_audit_layer_at(audit, i)->share;
    assert_true(fabs(shares - 1) < 1e-9);
    ek_audit_destroy(audit);
}

static void audit_refused(void **state)
{
    (void)state;
    ek_net_destroy(train_model(&healthy_mlp));
    ek_audit *audit;
    ek_audit_options o = ek_audit_options_default();
    assert_fails(EK_E_NOT_FOUND, "no-such", ek_audit_create(context, "no-such.safetensors", &o, &audit));
    o.data = images;
    assert_fails(EK_E_SHAPE, "the data: items are 1x10x10", ek_audit_create(context, model_path, &o, &audit));
    o.data = features;
    o.progress = stop_later;
    assert_fails(EK_E_INTERRUPTED, "stopped", ek_audit_create(context, model_path, &o, &audit));
    o.data = NULL;
    o.train = features;
    assert_fails(EK_E_ARGUMENT, "training data alone", ek_audit_create(context, model_path, &o, &audit));
    o = ek_audit_options_default();
    o.samples = 1;
    assert_fails(EK_E_ARGUMENT, "samples", ek_audit_create(context, model_path, &o, &audit));
}

/* Memory that runs out at any point is an error, and nothing is lost. */
static void out_of_memory(void **state)
{
    (void)state;
    recipe r = {mlp_text, NULL, "dropout 0.5\n", 64, 1, 0.1, EK_SCHEDULE_CONSTANT, 1000};
    ek_net *net = train_model(&r);
    plant p = dig();
    floats(&p, "bn1.weight")[4] = 0;
    write_plant(&p, NULL);
    ek_audit_options o = ek_audit_options_default();
    o.data = features_test;
    o.train = features;
    o.samples = 260;
    ek_audit *audit = NULL;
    size_t before = ek_memory_count().live_bytes;
    uint64_t calls = 1;
    for (; !audit; calls++) {
        ek_memory_fail_after(calls);
        ek_status status = ek_audit_create(context, model_path, &o, &audit);
        ek_memory_fail_after(0);
        assert_true(status == EK_OK || status == EK_E_MEMORY);
        if (status != EK_OK) assert_int_equal(ek_memory_count().live_bytes, before);
    }
    assert_true(calls > 100);
    ek_audit_destroy(audit);
    assert_int_equal(ek_memory_count().live_bytes, before);

    ek_dataset few = *features;
    few.count = 64;
    ek_net *same;
    assert_ok(ek_net_open(context, model_path, &same));
    ek_net_destroy(net);
    assert_ok(ek_net_open(context, model_path, &net));
    ek_status status = EK_E_MEMORY;
    for (calls = 1; status != EK_OK; calls++) {
        assert_same_statistics(net, same);
        ek_memory_fail_after(calls);
        status = ek_recalibrate(net, &few, NULL);
        ek_memory_fail_after(0);
        assert_true(status == EK_OK || status == EK_E_MEMORY);
    }
    assert_true(calls > 10);
    ek_net_destroy(net);
    ek_net_destroy(same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(healthy_models),
        cmocka_unit_test(sick_values),
        cmocka_unit_test(sick_channels),
        cmocka_unit_test(constant_input),
        cmocka_unit_test(untouched),
        cmocka_unit_test(notes),
        cmocka_unit_test(momentum_and_batch),
        cmocka_unit_test(other_weights),
        cmocka_unit_test(other_data),
        cmocka_unit_test(recalibrated_exactly),
        cmocka_unit_test(recalibration_refused),
        cmocka_unit_test(same_for_any_threads),
        cmocka_unit_test(without_labels),
        cmocka_unit_test(audit_refused),
        cmocka_unit_test(out_of_memory),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
