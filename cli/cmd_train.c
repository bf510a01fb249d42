#include "commands.h"
#include "train_run.h"

typedef cli_train_plan settings;

static const cli_option options[] = {
    ROW_OPERAND("NET", net, "A shipped net's name, a net text's path, or a model file to train on."),
    ROWS_DATA,
    ROWS_TRAINING,
    ROW_TEXT("init", "WHAT", init,
             "Initial weights: default (PyTorch's), xavier, kaiming, the deviation of a normal distribution "
             "such as 0.01, or a .safetensors FILE with a PyTorch state dict."),

    ROW_INTEGER("shards", "N", training.shards, 1, 65536,
                "Compute each batch in N shards, as N machines would, with the batch normalization of the whole batch. The result "
                "depends on N, and not on how many processes (evenkeel-mpi) share the work: mpirun -n R gives the bits of "
                "--shards R (default: one a process)."),
    ROW_CHOICE("bn", "sync|local", training.bn,
               "What shards normalize by: the whole batch, or their own samples alone, as ghost batches do (default sync)."),
    ROW_POSITIVE("timeout", "SECONDS", timeout,
                 "How long a process (evenkeel-mpi) may keep the others waiting before it is taken for dead (default 10, or ten "
                 "times the longest that a step took between two exchanges)."),

    ROWS_SCHEDULE,

    ROW_HEADING("Files:"),
    ROW_TEXT("out", "MODEL", out,
             "Where the trained model goes (.safetensors, or .onnx for other programs). Replaced only by a whole new model."),
    ROWS_RUN_FILES,
    ROWS_COMMON,
};

static int run(int argc, char **argv)
{
    settings s = {.training = cli_training_default()};
    int code;
    if (!cli_parse(&cli_train, argc, argv, &s, &code) || !cli_train_check(&cli_train, &s, &code)) return code;
    return cli_train_go(&s, argc, argv);
}

const cli_command cli_train = {
    .name = "train",
    .synopsis = "NET --data DATA --out MODEL [options]",
    .brief = "trains a net and saves the model",
    .about =
        "Trains a net with cross-entropy and shows after each epoch the loss and accuracy on the training "
        "data as it was seen, the accuracy on the test data where there is any, and the speed. "
        "Ctrl-C, like SIGTERM and SIGHUP, stops after the present step, saves the model so far and says how to go on; the "
        "exit code is then 1. A second Ctrl-C ends at once.",
    .examples = "  evenkeel train lenet-bn --data fashion-mnist --out lenet.safetensors\n"
                "  evenkeel train mlp-bn --data mnist --optimizer adam --batch 64 --valid 0.2 \\\n"
                "      --out mlp.safetensors\n"
                "  evenkeel train resnet20 --data synthetic:3x32x32 --schedule cosine \\\n"
                "      --warmup 1 --momentum 0.9 --weight-decay 1e-4 --no-decay-norm \\\n"
                "      --log run.jsonl --checkpoint run.checkpoint --out resnet.safetensors\n"
                "  evenkeel train lenet-bn --data fashion-mnist --out lenet.safetensors \\\n"
                "      --report run.html --tensorboard runs/lenet\n"
                "  evenkeel train my.net --data x.npy,y.npy --init state.safetensors \\\n"
                "      --out my.safetensors\n",
    .options = options,
    .run = run,
    .ranks = true,
};
