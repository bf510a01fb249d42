#include "commands.h"
#include "common.h"
#include "compare.h"
#include "output.h"
#include "ranks.h"
#include "stop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef compare_settings settings;

static const cli_option options[] = {
    ROW_OPERAND("NET", net,
                "A shipped net's name, a net text's path, or a model file, of which the net alone is taken."),
    ROW_REQUIRED_WORDS("vary", "KEY=V1,V2,...", vary,
                       "What is compared. Given several times, every value goes with every other. The keys are "
                       "listed below."),
    ROW_INTEGER("repeat", "N", repeat, 1, 1000,
                "Train each combination with N seeds, from --seed on; the table then has mean and standard "
                "deviation."),
    ROWS_DATA,
    ROWS_TRAINING,
    ROW_TEXT("init", "WHAT", init,
             "Initial weights: default (PyTorch's), xavier, kaiming, or the deviation of a normal distribution "
             "such as 0.01."),
    ROWS_SCHEDULE,

    ROW_HEADING("Files:"),
    ROW_TEXT("report", "FILE.html", report, "Write a page with curves, table and words, in one file."),
    ROW_TEXT("csv", "FILE.csv", csv, "Write a line for each run."),
    ROW_TEXT("state", "FILE", state,
             "Keep each finished run, and take those that it holds already: the same command goes on where it "
             "was stopped, and more values or seeds cost only their own runs."),
    ROW_FLAG("quiet", quiet, "No progress on stderr."),
    ROWS_COMMON,
};

static const char *options_wrong(const settings *s)
{
    if (s->training.seed > INT64_MAX - s->repeat) return "--seed is too large for so many seeds from it on";
    if (cli_same_file(s->state, s->csv) || cli_same_file(s->state, s->report) || cli_same_file(s->state, s->net))
        return "--state needs a file of its own";
    if (cli_would_lose(s->csv, s->training.data, NULL) || cli_would_lose(s->report, s->training.data, NULL))
        return "the data would be overwritten; name another file for the output";
    if (cli_same_file(s->csv, s->report)) return "--csv and --report must be two files";
    if (cli_same_file(s->csv, s->net) || cli_same_file(s->report, s->net)) return "the net's file would be overwritten";
    return NULL;
}

static void print_stopped(const comparison *c, int argc, char **argv)
{
    int64_t done = 0;
    for (int i = 0; i < c->count; i++) {
        for (int64_t r = 0; r < c->s->repeat; r++) done += c->at[i].run[r].outcome != COMPARE_NOT_RUN;
    }
    cli_fail("stopped after %lld of %lld runs", (long long)done, (long long)(c->count * c->s->repeat));
    if (!c->s->state) {
        fprintf(stderr, "Without --state FILE the comparison cannot be resumed.\n");
        return;
    }
    fprintf(stderr, "Go on with:\n ");
    for (int i = 0; i < argc; i++) cli_print_quoted(stderr, argv[i]);
    fputc('\n', stderr);
}

static bool answer(const comparison *c)
{
    char *words = compare_words(c);
    if (c->s->json)
        compare_print_json(c, words);
    else
        compare_print(c, words);
    bool fine = !c->s->csv || compare_write_csv(c, c->s->csv);
    fine = (!c->s->report || compare_write_report(c, words, c->s->report)) && fine;
    if (!c->s->json && c->s->csv && fine) printf("\nruns: %s\n", c->s->csv);
    if (!c->s->json && c->s->report && fine) printf("%sreport: %s\n", c->s->csv ? "" : "\n", c->s->report);
    free(words);
    return fine;
}

static int compare(comparison *c, int argc, char **argv)
{
    const settings *s = c->s;
    compare_state state;
    int done = 0, code = CLI_FAILED;
    bool writable = (!s->csv || cli_can_write(s->csv)) && (!s->report || cli_can_write(s->report));
    if (writable && compare_state_open(&state, c, &done) && compare_share_all(c, &done)) {
        cli_stop_listen();
        compare_add_notes(c);
        if (done > 0 && !s->quiet) cli_note("%s has %d of the runs already", s->state, done);
        compare_run_all(c, &state, done);
        bool fine = answer(c);
        if (c->stopped) print_stopped(c, argc, argv);
        code = fine && !c->stopped && !state.failed ? CLI_DONE : CLI_FAILED;
    }
    if (writable) compare_state_close(&state);
    return code;
}

static int run(int argc, char **argv)
{
    settings s = {.training = cli_training_default(), .repeat = 1};
    int code;
    if (!cli_parse(&cli_compare, argc, argv, &s, &code)) return code;
    const char *wrong = options_wrong(&s);
    if (wrong) return cli_usage_error(&cli_compare, "%s", wrong);
    /* A reader of the answer that goes away must not take the runs with it. */
    signal(SIGPIPE, SIG_IGN);

    cli_model model;
    code = CLI_FAILED;
    if (!cli_speaks()) {
        s.csv = s.report = s.state = NULL;
        s.quiet = true;
    }
    if (cli_model_open_alone(&model, s.net, s.threads)) {
        comparison c = {.s = &s, .context = model.context, .net = model.net};
        code = compare_plan(&c, &cli_compare);
        if (!code) code = compare(&c, argc, argv);
        compare_free(&c);
    }
    cli_model_close(&model);
    return code;
}

const cli_command cli_compare = {
    .name = "compare",
    .synopsis = "NET --data DATA --vary KEY=V1,V2,... [options]",
    .brief = "trains variants of a net and says what the difference is",
    .about =
        "Trains a net anew for every combination of what is varied, and shows final and best accuracy (on the "
        "test data, else on what --valid holds out, else on the training data), loss, time and what became of it, "
        "then says in words what the figures show. Whatever cannot be is named before anything runs. A run that "
        "diverges or fails is a row of the table. Ctrl-C stops after the present step, shows what there is and "
        "says how to go on; the exit code is then 1.",
    .examples = "  evenkeel compare lenet-bn --data fashion-mnist --epochs 3 \\\n"
                "      --vary norm=batch,none,layer,group,instance --report norms.html\n"
                "  evenkeel compare lenet-bn --data fashion-mnist --epochs 2 --repeat 3 \\\n"
                "      --vary norm=batch,none --vary lr=0.01,0.1,1 --state rates.state\n"
                "  evenkeel compare my.net --data train.csv --valid 0.2 --vary dropout=0,0.2,0.5\n",
    .after = "Keys of --vary, which change the net:\n"
             "  norm        batch, none, layer, group, instance, rms: all normalizations\n"
             "              become this one; a net without any gets one behind each hidden\n"
             "              convolution and linear layer\n"
             "  position    before, after: normalization and activation change places\n"
             "  activation  relu, sigmoid, tanh, silu, leakyrelu\n"
             "  width       times as many channels and features in the hidden layers: 0.5,1,2\n"
             "  dropout     a share: behind the hidden linear layers' activations, or in front\n"
             "              of the last linear layer where there are none; 0: none\n"
             "  momentum    batch normalization's (--momentum is the optimizer's), or none\n"
             "  eps         the normalizations'\n"
             "  ghost       batch normalization's: samples of a ghost batch; 0: no ghosts\n"
             "or the training:\n"
             "  batch, lr, optimizer, init    in place of the options of that name\n",
    .options = options,
    .run = run,
    .ranks = true,
};
