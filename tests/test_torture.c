/* Want of memory everywhere: each piece of work is done again and again, its 1st allocation failing, its 2nd, and so on,
 * alone or with all after it, be it the library's own or that of a library beneath it. Each time there is either an error
 * of memory with a sentence, or the work is done with the result that it always has; nothing leaks, what was given is as
 * it was, and the folder holds whole files alone.
 *
 * So many allocations are tried as take seconds; all of them with EVENKEEL_TORTURE=all. With EVENKEEL_TORTURE=save:333 that
 * one alone, and where it is asked for (addr2line -fe build/dev/tests/test_torture ADDRESS... tells the lines). */
#include "testing.h"

#include "failing_malloc.h"

#include "core/text.h"
#include "graph/net.h"
#include "lab/report.h"

#include <dirent.h>
#include <execinfo.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

/* --- a workplace */

static char folder[] = "/tmp/evenkeel-torture-XXXXXX";
static ek_context *context;

static const char net_text[] = "input 1x8x8 mean=0.4 std=0.3\n"
                               "conv1: conv 4 kernel=3 padding=1\n"
                               "bn1: batchnorm\n"
                               "relu\n"
                               "maxpool 2\n"
                               "dropout 0.1\n"
                               "flatten\n"
                               "fc1: linear 8\n"
                               "bn2: batchnorm\n"
                               "relu\n"
                               "fc2: linear 3\n";
static const char sequence_text[] = "input 1x20\nconv1d 4 kernel=3\nbatchnorm\nrelu\nglobalavgpool\nflatten\nlinear 3\n";
enum { SAMPLES = 40, PIXELS = 64 };

/* A path in the folder, valid for the next few calls. */
static const char *at(const char *name)
{
    static char path[8][320];
    static int next;
    char *made = path[next++ % 8];
    snprintf(made, sizeof path[0], "%s/%s", folder, name);
    return made;
}

static const char *spec(const char *images, const char *labels)
{
    static char both[700];
    snprintf(both, sizeof both, "%s,%s", at(images), at(labels));
    return both;
}

/* --- what must not change: a number for all bits */

static uint64_t mix(uint64_t digest, const void *data, size_t size)
{
    const unsigned char *byte = data;
    for (size_t i = 0; i < size; i++) digest = (digest ^ byte[i]) * 0x100000001b3u;
    return digest;
}

static uint64_t file_digest(const char *path)
{
    unsigned char buffer[4096];
    uint64_t digest = 0xcbf29ce484222325u;
    bool on = atomic_exchange(&failing_malloc.on, false); /* looking at it must not fail */
    FILE *file = fopen(path, "rb");
    for (size_t got; file && (got = fread(buffer, 1, sizeof buffer, file)) > 0;) digest = mix(digest, buffer, got);
    digest = file ? digest : 0;
    if (file) fclose(file);
    atomic_store(&failing_malloc.on, on);
    return digest;
}

static uint64_t net_digest(const ek_net *net)
{
    uint64_t digest = 0xcbf29ce484222325u;
    for (int i = 0; i < ek_net_tensor_count(net); i++) {
        ek_tensor t = ek_net_tensor(net, i);
        if (t.data) digest = mix(digest, t.data, (size_t)ek_shape_count(t.shape) * sizeof *t.data);
    }
    const char *text = ek_net_text(net);
    return mix(digest, text, strlen(text));
}

/* Of the net's outputs, which says that it still runs. */
static uint64_t output_digest(ek_net *net)
{
    float x[2 * PIXELS], y[2 * PIXELS];
    ek_shape in = ek_net_input_shape(net), out = ek_net_output_shape(net);
    for (int i = 0; i < 2 * ek_shape_count(in); i++) x[i] = (float)(i * 37 % 101) / 101;
    assert_ok(ek_net_forward(net, EK_MODE_INFERENCE, 2, x, y));
    return mix(0, y, (size_t)(2 * ek_shape_count(out)) * sizeof *y);
}

static bool is_part_of_work(const char *name) { return strncmp(name, "out", 3) == 0; }

/* Of all files in the folder but those that the work makes, whose names begin with "out". */
static uint64_t inputs_digest(void)
{
    uint64_t digest = 0;
    DIR *list = opendir(folder);
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));) {
        if (*entry->d_name == '.' || is_part_of_work(entry->d_name)) continue;
        digest += mix(file_digest(at(entry->d_name)), entry->d_name, strlen(entry->d_name)); /* in any order */
    }
    closedir(list);
    return digest;
}

static void no_half_files(void)
{
    DIR *list = opendir(folder);
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));) {
        if (strstr(entry->d_name, ".unfinished") || strstr(entry->d_name, ".lock"))
            fail_msg("%s was left", entry->d_name);
    }
    closedir(list);
}

static void remove_outputs(void)
{
    DIR *list = opendir(folder);
    assert_non_null(list);
    for (struct dirent *entry; (entry = readdir(list));) {
        if (is_part_of_work(entry->d_name)) unlink(at(entry->d_name));
    }
    closedir(list);
}

/* --- where memory is asked for: stacks, each once */

enum { MOST_SITES = 1 << 16, DEPTH = 32 };
static struct {
    uint64_t hash[MOST_SITES]; /* a table; 0: free */
    int count;
} sites;
static atomic_flag sites_busy = ATOMIC_FLAG_INIT;

static void add_site(uint64_t hash)
{
    hash += hash == 0;
    for (uint64_t i = hash; sites.count < MOST_SITES / 2; i++) {
        uint64_t *place = &sites.hash[i % MOST_SITES];
        if (*place == hash) return;
        if (*place) continue;
        *place = hash;
        sites.count++;
        return;
    }
}

static void see_site(void)
{
    void *stack[DEPTH];
    int depth = backtrace(stack, DEPTH);
    while (atomic_flag_test_and_set(&sites_busy)) {
    }
    add_site(mix(0, stack, (size_t)depth * sizeof *stack));
    atomic_flag_clear(&sites_busy);
}

/* --- the rounds */

static struct {
    int scenarios;
    uint64_t allocations, rounds;
    int sites;
} all;

static bool is_thorough(void)
{
    const char *asked = getenv("EVENKEEL_TORTURE");
    return asked && !strcmp(asked, "all");
}

static void arm(uint64_t number, bool alone)
{
#if defined(FAILS_MALLOC)
    failing_malloc.alone = alone;
    atomic_store(&failing_malloc.calls, 0);
    atomic_store(&failing_malloc.at, number);
    atomic_store(&failing_malloc.on, true);
#else
    if (alone)
        ek_memory_fail_one(number);
    else
        ek_memory_fail_after(number);
#endif
}

static void disarm(void)
{
    atomic_store(&failing_malloc.on, false);
    ek_memory_fail_after(0);
}

/* A piece of work: gives back all that it takes, and where it succeeds says in *digest what came of it. */
typedef ek_status work(uint64_t *digest);

static uint64_t count_allocations(work *run, uint64_t *digest)
{
    memset(&sites, 0, sizeof sites);
    failing_malloc.seen = see_site;
    uint64_t before = ek_memory_count().allocations;
    arm(0, true);
    ek_status status = run(digest);
    disarm();
    failing_malloc.seen = NULL;
    assert_ok(status);
    remove_outputs();
#if defined(FAILS_MALLOC)
    (void)before;
    return atomic_load(&failing_malloc.calls);
#else
    return ek_memory_count().allocations - before;
#endif
}

static void one_round(const char *name, work *run, uint64_t number, bool alone, uint64_t expected)
{
    uint64_t digest = 0;
    size_t live = ek_memory_count().live_bytes;
    int64_t blocks = atomic_load(&failing_malloc.live);
    arm(number, alone);
    ek_status status = run(&digest);
    disarm();
    if (status != EK_OK && status != EK_E_MEMORY)
        fail_msg("%s, allocation %d%s: %s: %s", name, (int)number, alone ? " alone" : "", ek_status_name(status), ek_error());
    if (status != EK_OK && !*ek_error()) fail_msg("%s, allocation %d: there is no sentence", name, (int)number);
    if (status == EK_OK && digest != expected)
        fail_msg("%s, allocation %d%s: failed, nobody said so, and the result is another", name, (int)number,
                 alone ? " alone" : "");
    if (ek_memory_count().live_bytes != live || atomic_load(&failing_malloc.live) != blocks)
        fail_msg("%s, allocation %d%s: %ld bytes of the library's and %ld blocks in all are lost", name, (int)number,
                 alone ? " alone" : "", (long)(ek_memory_count().live_bytes - live),
                 (long)(atomic_load(&failing_malloc.live) - blocks));
    no_half_files();
    remove_outputs();
}

/* The one that is asked for; 0: none is. */
static uint64_t chosen(const char *name)
{
    const char *asked = getenv("EVENKEEL_TORTURE"), *colon = asked ? strchr(asked, ':') : NULL;
    bool this = colon && strlen(name) == (size_t)(colon - asked) && !strncmp(asked, name, strlen(name));
    return this ? strtoull(colon + 1, NULL, 10) : 0;
}

static uint64_t shown;

static void show_site(void)
{
    void *stack[DEPTH];
    if (atomic_load(&failing_malloc.calls) + 1 == shown) backtrace_symbols_fd(stack, backtrace(stack, DEPTH), STDERR_FILENO);
}

static void torture(const char *name, work *run)
{
    uint64_t expected = 0, again = 0;
    disarm(); /* an earlier piece of work may have failed */
    remove_outputs();
    assert_ok(run(&expected)); /* whatever is kept for good is taken now */
    remove_outputs();
    uint64_t inputs = inputs_digest(), count = count_allocations(run, &again);
    assert_true(expected == again);
    if ((shown = chosen(name)) > 0) {
        failing_malloc.seen = show_site;
        one_round(name, run, shown, true, expected);
        failing_malloc.seen = NULL;
        return;
    }
    enum { ENOUGH = 40 };
    uint64_t each = is_thorough() || count <= ENOUGH ? 1 : (count + ENOUGH - 1) / ENOUGH, rounds = 0;
    for (int alone = 0; alone < 2; alone++) {
        for (uint64_t number = 1 + (each > 1 && alone ? each / 2 : 0); number <= count; number += each, rounds++) {
            one_round(name, run, number, alone, expected);
            if (inputs_digest() != inputs) fail_msg("%s, allocation %d: a file was changed", name, (int)number);
        }
    }
    print_message("%-24s %6d allocations, from %4d places; %6d rounds\n", name, (int)count, sites.count, (int)rounds);
    all.scenarios++;
    all.allocations += count;
    all.rounds += rounds;
    all.sites += sites.count;
}

/* --- what is done */

static ek_status open_and_run(uint64_t *digest)
{
    ek_context *own = NULL;
    ek_net *net = NULL;
    float x[PIXELS] = {0.5f}, y[3];
    ek_status status = ek_context_create(&(ek_context_options){.threads = 2}, &own);
    if (status == EK_OK) status = ek_net_open(own, at("net.net"), &net);
    if (status == EK_OK) status = ek_net_init(net, EK_INIT_KAIMING, 3);
    if (status == EK_OK) status = ek_net_forward(net, EK_MODE_INFERENCE, 1, x, y);
    if (status == EK_OK) *digest = mix(net_digest(net), y, sizeof y);
    ek_net_destroy(net);
    ek_context_destroy(own);
    return status;
}

static ek_status open_model(uint64_t *digest)
{
    ek_net *net = NULL;
    ek_status status = ek_net_open(context, at("model.safetensors"), &net);
    if (status == EK_OK) *digest = net_digest(net);
    ek_net_destroy(net);
    return status;
}

/* A data set: all its samples. */
static ek_status look(const ek_dataset *data, uint64_t *digest)
{
    float x[PIXELS];
    int label;
    *digest = 0;
    for (int64_t i = 0; i < ek_dataset_count(data); i++) {
        ek_status status = ek_dataset_item(data, i, x, &label);
        if (status != EK_OK) return status;
        *digest = mix(*digest, x, (size_t)ek_shape_count(ek_dataset_shape(data)) * sizeof *x);
        *digest = mix(*digest, &label, sizeof label);
    }
    return EK_OK;
}

static ek_status open_data(const char *what, uint64_t *digest)
{
    ek_dataset *data = NULL;
    ek_status status = ek_dataset_open(what, EK_SPLIT_TRAIN, &data);
    if (status == EK_OK) status = look(data, digest);
    ek_dataset_destroy(data);
    return status;
}
static ek_status open_npy(uint64_t *digest) { return open_data(spec("x.npy", "y.npy"), digest); }
static ek_status open_idx(uint64_t *digest) { return open_data(spec("x.idx.gz", "y.idx"), digest); }
static ek_status open_csv(uint64_t *digest) { return open_data(at("data.csv"), digest); }
static ek_status open_png(uint64_t *digest)
{
    ek_dataset *data = NULL;
    ek_status status = ek_dataset_open_items(at("x.png"), (ek_shape){.rank = 3, .dim = {1, 8, 8}}, &data);
    if (status == EK_OK) status = look(data, digest);
    ek_dataset_destroy(data);
    return status;
}

/* The model, and a look at what became of it where the work fails that is done on it. */
static ek_net *model;
static uint64_t model_digest;
static ek_dataset *data, *test, *unlike, *sequences;

static void model_is_as_it_was(void)
{
    assert_true(net_digest(model) == model_digest);
}

/* Training, of a net of its own. What came of it: the model's bits, and the checkpoint's. */
static ek_status train(const char *text, const ek_dataset *on, ek_train_options *o, uint64_t *digest)
{
    ek_net *net = NULL;
    ek_observer *observer = NULL;
    ek_report *report = NULL;
    ek_status status = ek_net_create(context, text, NULL, &net);
    if (status == EK_OK) status = ek_observer_create(&observer);
    o->observer = observer;
    if (status == EK_OK) status = ek_train(net, on, on == data ? test : NULL, o);
    if (status == EK_OK) status = ek_report_create("Torture", &report);
    if (status == EK_OK) {
        ek_report_training(report, observer);
        status = ek_report_write(report, at("out.html"));
    }
    if (status == EK_OK) status = ek_net_save(net, at("out.safetensors"));
    if (status == EK_OK) *digest = net_digest(net) ^ file_digest(at("out.safetensors"));
    if (status == EK_OK && o->checkpoint) *digest = mix(*digest, (uint64_t[]){file_digest(o->checkpoint)}, 8);
    disarm();
    if (net) output_digest(net); /* it still runs */
    ek_report_destroy(report);
    ek_observer_destroy(observer);
    ek_net_destroy(net);
    return status;
}

static ek_train_options train_options(void)
{
    ek_train_options o = ek_train_options_default();
    o.epochs = 2;
    o.batch = 8;
    return o;
}

static ek_status train_plainly(uint64_t *digest)
{
    ek_train_options o = train_options();
    o.valid_fraction = 0.2;
    o.optimizer.momentum = 0.9;
    o.checkpoint = at("out.checkpoint");
    o.checkpoint_steps = 2;
    return train(net_text, data, &o, digest);
}

static ek_status train_in_parts(uint64_t *digest)
{
    ek_train_options o = train_options();
    o.accumulate = 3;
    o.optimizer = ek_optimizer_options_default(EK_OPTIMIZER_ADAMW);
    o.optimizer.clip_norm = 1;
    return train(net_text, data, &o, digest);
}

static const char ghost_text[] = "input 1x8x8\nconv 4 kernel=3\nbatchnorm ghost=4\nrelu\nflatten\nlinear 3\n";

static ek_status train_ghosts(uint64_t *digest)
{
    ek_train_options o = train_options();
    o.schedule = EK_SCHEDULE_COSINE;
    o.warmup_epochs = 1;
    return train(ghost_text, data, &o, digest);
}

static ek_status train_sequences(uint64_t *digest)
{
    ek_train_options o = train_options();
    return train(sequence_text, sequences, &o, digest);
}

static ek_status resume(uint64_t *digest)
{
    ek_train_options o = train_options();
    o.valid_fraction = 0.2;
    o.optimizer.momentum = 0.9;
    o.resume = at("run.checkpoint");
    o.checkpoint = at("out.checkpoint");
    return train(net_text, data, &o, digest);
}

static ek_status evaluate(uint64_t *digest)
{
    ek_net *net = NULL;
    ek_dataset *set = NULL;
    ek_metrics m;
    ek_status status = ek_net_open(context, at("model.safetensors"), &net);
    if (status == EK_OK) status = ek_dataset_open(spec("x.npy", "y.npy"), EK_SPLIT_TRAIN, &set);
    if (status == EK_OK) status = ek_evaluate(net, set, 16, &m);
    if (status == EK_OK) *digest = mix(mix(0, &m.loss, sizeof m.loss), &m.accuracy, sizeof m.accuracy);
    if (net) assert_true(net_digest(net) == model_digest);
    ek_dataset_destroy(set);
    ek_net_destroy(net);
    return status;
}

static ek_status recalibrate(uint64_t *digest, bool fast)
{
    ek_net *net = NULL;
    ek_recalibrate_options o = ek_recalibrate_options_default();
    o.batch = 16;
    o.fast = fast;
    ek_status status = ek_net_open(context, at("model.safetensors"), &net);
    if (status == EK_OK) {
        status = ek_recalibrate(net, data, &o);
        if (status != EK_OK) assert_true(net_digest(net) == model_digest);
    }
    if (status == EK_OK) status = ek_net_save(net, at("out.safetensors"));
    if (status == EK_OK) *digest = net_digest(net);
    ek_net_destroy(net);
    return status;
}
static ek_status recalibrate_by_depth(uint64_t *digest) { return recalibrate(digest, false); }
static ek_status recalibrate_fast(uint64_t *digest) { return recalibrate(digest, true); }

static ek_status audit(uint64_t *digest)
{
    ek_audit *a = NULL;
    ek_audit_options o = ek_audit_options_default();
    o.data = unlike; /* which takes a long finding to say */
    o.train = data;
    o.batch = 16;
    ek_status status = ek_audit_create(context, at("model.safetensors"), &o, &a);
    if (status == EK_OK) {
        *digest = 0;
        for (int i = 0; i < ek_audit_finding_count(a); i++) {
            const ek_finding *f = ek_audit_finding(a, i);
            *digest = mix(mix(*digest, f->code, strlen(f->code)), f->evidence, strlen(f->evidence));
        }
    }
    ek_audit_destroy(a);
    return status;
}

static ek_status import(uint64_t *digest)
{
    ek_net *net = NULL;
    ek_status status = ek_net_open(context, at("model.onnx"), &net);
    if (status == EK_OK) *digest = net_digest(net);
    ek_net_destroy(net);
    return status;
}

static ek_status take_foreign(uint64_t *digest)
{
    ek_net *plain = NULL, *net = NULL;
    ek_status status = ek_net_create(context, net_text, NULL, &plain);
    if (status == EK_OK) status = ek_net_take_foreign(plain, at("model.safetensors"), EK_FROM_PYTORCH, NULL, &net);
    if (status == EK_OK) *digest = net_digest(net);
    ek_net_destroy(net);
    ek_net_destroy(plain);
    return status;
}

static ek_status fold(uint64_t *digest)
{
    ek_net *net = NULL;
    ek_fold *f = NULL;
    ek_fold_options o = ek_fold_options_default();
    o.data = data;
    o.samples = 8;
    ek_status status = ek_net_open(context, at("model.safetensors"), &net);
    if (status == EK_OK) status = ek_fold_create(net, &o, &f);
    if (status == EK_OK) status = ek_net_save(ek_fold_net(f), at("out.safetensors"));
    if (status == EK_OK) *digest = file_digest(at("out.safetensors"));
    if (net) assert_true(net_digest(net) == model_digest);
    ek_fold_destroy(f);
    ek_net_destroy(net);
    return status;
}

static ek_status save(uint64_t *digest)
{
    ek_status status = ek_net_save(model, at("out.safetensors"));
    if (status == EK_OK) *digest = file_digest(at("out.safetensors"));
    model_is_as_it_was();
    return status;
}

static ek_status save_onnx(uint64_t *digest)
{
    ek_status status = ek_net_save_onnx(model, at("out.onnx"));
    if (status == EK_OK) *digest = file_digest(at("out.onnx"));
    model_is_as_it_was();
    return status;
}

static ek_status save_c(uint64_t *digest, bool int8)
{
    ek_net *net = NULL;
    ek_c_options o = ek_c_options_default();
    o.int8 = int8;
    o.data = int8 ? data : NULL;
    o.test = int8 ? test : NULL;
    ek_status status = ek_net_open(context, at("model.safetensors"), &net);
    if (status == EK_OK) status = ek_net_save_c(net, &o, at("out.c"), NULL);
    if (status == EK_OK) *digest = file_digest(at("out.c")) ^ file_digest(at("out.h")) ^ file_digest(at("out_test.c"));
    if (net) assert_true(net_digest(net) == model_digest);
    ek_net_destroy(net);
    return status;
}
static ek_status save_c_floats(uint64_t *digest) { return save_c(digest, false); }
static ek_status save_c_int8(uint64_t *digest) { return save_c(digest, true); }

static ek_status vary(uint64_t *digest)
{
    ek_net *net = NULL;
    ek_status status = ek_net_vary(model, "norm", "group", &net);
    if (status == EK_OK) *digest = net_digest(net);
    ek_net_destroy(net);
    model_is_as_it_was();
    return status;
}

/* Events of a run; what they say has the time in it. */
static ek_status write_events(uint64_t *digest)
{
    ek_event_file *file = NULL;
    *digest = 1;
    ek_status status = ek_event_file_create(at("out.events"), &file);
    for (int i = 1; i < 5 && status == EK_OK; i++) {
        ek_event step = {.kind = EK_EVENT_STEP, .step = i, .steps = 4, .loss = 1, .lr = 0.1};
        status = ek_event_file_add(file, &step, model, NULL);
    }
    ek_event epoch = {.kind = EK_EVENT_EPOCH, .step = 4, .steps = 4, .epoch = 1, .epochs = 1};
    if (status == EK_OK) status = ek_event_file_add(file, &epoch, model, NULL);
    ek_status closed = ek_event_file_close(file, false);
    model_is_as_it_was();
    return status == EK_OK ? closed : status;
}

/* --- the folder's files */

static void put(const char *name, const void *bytes, size_t size) { assert_ok(ek_file_write(at(name), bytes, size)); }

static void put_gz(const char *name, const void *bytes, unsigned size)
{
    gzFile file = gzopen(at(name), "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, bytes, size), size);
    assert_int_equal(gzclose(file), Z_OK);
}

static void put_npy(const char *name, const char *shape, const void *bytes, size_t size)
{
    char all_bytes[128 + SAMPLES * PIXELS];
    int header = snprintf(all_bytes, sizeof all_bytes, "%cNUMPY%c%c%c%c{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }",
                          0x93, 1, 0, 118, 0, shape);
    assert_int_equal(header, (int)strlen(all_bytes + 10) + 10);
    memset(all_bytes + header, ' ', 128 - (size_t)header);
    all_bytes[127] = '\n';
    memcpy(all_bytes + 128, bytes, size);
    put(name, all_bytes, 128 + size);
}

static size_t png_part(unsigned char *to, const char *kind, const void *bytes, size_t size)
{
    for (int i = 0; i < 4; i++) to[i] = (unsigned char)(size >> (24 - 8 * i));
    memcpy(to + 4, kind, 4);
    memcpy(to + 8, bytes, size);
    uint64_t crc = crc32(0, to + 4, (unsigned)size + 4);
    for (int i = 0; i < 4; i++) to[8 + size + (size_t)i] = (unsigned char)(crc >> (24 - 8 * i));
    return 12 + size;
}

static void put_png(void)
{
    static const unsigned char head[] = {0, 0, 0, 8, 0, 0, 0, 8, 8, 0, 0, 0, 0};
    unsigned char rows[72] = {0}, packed[200], file[400] = "\x89PNG\r\n\x1a\n";
    for (int i = 0; i < 72; i++) rows[i] = i % 9 ? (unsigned char)(i * 3) : 0;
    uLongf size = sizeof packed;
    assert_int_equal(compress(packed, &size, rows, sizeof rows), Z_OK);
    size_t length = 8;
    length += png_part(file + length, "IHDR", head, sizeof head);
    length += png_part(file + length, "IDAT", packed, size);
    length += png_part(file + length, "IEND", "", 0);
    put("x.png", file, length);
}

static void put_data(void)
{
    unsigned char pixel[16 + SAMPLES * PIXELS] = {0, 0, 8, 3, 0, 0, 0, SAMPLES, 0, 0, 0, 8, 0, 0, 0, 8},
                  label[8 + SAMPLES] = {0, 0, 8, 1, 0, 0, 0, SAMPLES};
    for (int i = 0; i < SAMPLES; i++) label[8 + i] = (unsigned char)(i % 3);
    for (int i = 0; i < SAMPLES * PIXELS; i++)
        pixel[16 + i] = (unsigned char)(i * 37 % 101 + (i / PIXELS % 3 == i % PIXELS / 22) * 120);
    put_gz("x.idx.gz", pixel, sizeof pixel);
    put("y.idx", label, sizeof label);
    put_npy("x.npy", "40, 1, 8, 8", pixel + 16, SAMPLES * PIXELS);
    put_npy("y.npy", "40,", label + 8, SAMPLES);
    for (int i = 0; i < SAMPLES * PIXELS; i++) pixel[16 + i] = (unsigned char)(255 - pixel[16 + i] / 2);
    put_npy("u.npy", "40, 1, 8, 8", pixel + 16, SAMPLES * PIXELS);
    put_npy("s.npy", "40, 1, 20", pixel + 16, SAMPLES * 20);
    ek_text csv = {0};
    for (int i = 0; i < 30; i++) ek_text_add(&csv, "%d,%d.5,%s\n", i, i * 7 % 5, i % 2 ? "tea" : "coffee");
    assert_ok(ek_text_status(&csv));
    put("data.csv", csv.data, csv.length);
    ek_text_free(&csv);
    put("net.net", net_text, strlen(net_text));
    put_png();
}

static int make_folder(void **state)
{
    (void)state;
    uint64_t digest;
    void *stack[4];
    backtrace(stack, 4); /* which takes memory the first time */
    assert_non_null(mkdtemp(folder));
    put_data();
    assert_ok(ek_context_create(&(ek_context_options){.threads = 2}, &context));
    assert_ok(ek_dataset_open(spec("x.npy", "y.npy"), EK_SPLIT_TRAIN, &data));
    assert_ok(ek_dataset_open(spec("x.idx.gz", "y.idx"), EK_SPLIT_TRAIN, &test));
    assert_ok(ek_dataset_open(spec("u.npy", "y.npy"), EK_SPLIT_TRAIN, &unlike));
    assert_ok(ek_dataset_open(spec("s.npy", "y.npy"), EK_SPLIT_TRAIN, &sequences));
    assert_ok(train_plainly(&digest));
    assert_int_equal(rename(at("out.safetensors"), at("model.safetensors")), 0);
    assert_ok(ek_net_open(context, at("model.safetensors"), &model));
    assert_ok(ek_net_save_onnx(model, at("model.onnx")));
    model_digest = net_digest(model);
    ek_train_options o = train_options();
    o.epochs = 1;
    o.valid_fraction = 0.2;
    o.optimizer.momentum = 0.9;
    o.checkpoint = at("run.checkpoint");
    assert_ok(train(net_text, data, &o, &digest));
    remove_outputs();
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[64];
    ek_net_destroy(model);
    ek_dataset_destroy(data);
    ek_dataset_destroy(test);
    ek_dataset_destroy(unlike);
    ek_dataset_destroy(sequences);
    ek_context_destroy(context);
    snprintf(command, sizeof command, "rm -r %s", folder);
    print_message("%d pieces of work, %d allocations from %d places, %d rounds\n", all.scenarios, (int)all.allocations,
                  all.sites, (int)all.rounds);
    return system(command);
}

#define SCENARIOS(X)                                                                                           \
    X(open_and_run) X(open_model) X(open_npy) X(open_idx) X(open_csv) X(open_png) X(train_plainly)             \
    X(train_in_parts) X(train_ghosts) X(train_sequences) X(resume) X(evaluate) X(recalibrate_by_depth)         \
    X(recalibrate_fast) X(audit) X(import) X(take_foreign) X(fold) X(save) X(save_onnx) X(save_c_floats)       \
    X(save_c_int8) X(vary) X(write_events)

#define TEST(work)                             \
    static void want_of_memory_in_##work(void **state) \
    {                                          \
        (void)state;                           \
        torture(#work, work);                  \
    }
SCENARIOS(TEST)

int main(void)
{
    const struct CMUnitTest tests[] = {
#define ROW(work) cmocka_unit_test(want_of_memory_in_##work),
        SCENARIOS(ROW)
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
