/* Net texts: what is read, what is refused and where, what is written; parameters and their beginning. */
#include "testing.h"

#include "core/file.h"
#include "core/memory.h"
#include "core/random.h"
#include "graph/graph.h"

#include <math.h>
#include <stdio.h>

static void parse(const char *text, ek_graph *graph) { assert_ok(ek_graph_parse(text, "x.net", graph)); }

/* --- errors: the whole sentence, or its beginning */

typedef struct refusal {
    const char *text, *sentence;
} refusal;

static const refusal refusals[] = {
    {"", "x.net:1:1: there is no layer; a net begins with its input, such as 'input 1x28x28'"},
    {"\n  # nothing\n", "x.net:1:1: there is no layer"},
    {"# net\n\n  relu", "x.net:3:3: a net begins with its input, such as 'input 1x28x28', not with relu"},
    {"input 3\nlinear 2\n input 4", "x.net:3:2: a net has one input, and line 1 has it"},
    {"input 3 from=a", "x.net:1:9: input reads no other layer; drop from="},

    {"input 1x8x8\ncov 3 kernel=3", "x.net:2:1: there is no layer 'cov'; did you mean 'conv'?"},
    {"input 1x8x8\nconv2d 3 kernel=3", "x.net:2:1: there is no layer 'conv2d'; did you mean 'conv'?"},
    {"input 3\nx: dense 4",
     "x.net:2:4: there is no layer 'dense'; the layers are: input, conv, conv1d, convtranspose, convtranspose1d, linear,"},
    {"input 1x8x8\nconv 3 kernl=3", "x.net:2:8: conv has no option 'kernl'; did you mean 'kernel'?"},
    {"input 3\nrelu inplace=true", "x.net:2:6: relu has no option 'inplace'; its options are: from"},
    {"input 3\nlinear 4 =5", "x.net:2:10: linear has no option ''; its options are: out, bias, from"},
    {"input 3\nlinear 4 bias=false bias=true", "x.net:2:21: bias is given twice"},
    {"input 3\nlinear 4 out=5", "x.net:2:10: out is given twice"},
    {"input 3\na: relu\nrelu from=a from=a", "x.net:3:13: from is given twice"},

    {"input 1x8x8\n conv 3", "x.net:2:2: conv needs kernel= (K or HxW)"},
    {"input 3\nlinear", "x.net:2:1: linear needs a value for out (output features)"},
    {"input", "x.net:1:1: input needs a value for shape"},
    {"input 3\nlinear 4 5",
     "x.net:2:10: '5' is one value too many for linear; options are written name=value, without blanks"},
    {"input 1x8x8\nconv 3 kernel = 3",
     "x.net:2:8: 'kernel' is one value too many for conv; options are written name=value, without blanks"},
    {"input 1x8x8\nconv kernel=3 3", "x.net:2:15: '3' has no name and so must stand before the options"},

    {"input 1x8x8\nconv 0 kernel=3",
     "x.net:2:6: out of conv must be a whole number from 1 to 1048576, not '0'"},
    {"input 1x8x8\nconv -3 kernel=3",
     "x.net:2:6: out of conv must be a whole number from 1 to 1048576, not '-3'"},
    {"input 1x8x8\nconv 99999999999999999999999999 kernel=3",
     "x.net:2:6: out of conv must be a whole number from 1 to 1048576"},
    {"input 1x8x8\nconv 2 kernel=3x3x3",
     "x.net:2:15: kernel of conv must be K or HxW, whole numbers from 1 to 4096, not '3x3x3'"},
    {"input 1x8x8\nconv 2 kernel=3x", "x.net:2:15: kernel of conv must be K or HxW"},
    {"input 1x8x8\nconv 2 kernel=",
     "x.net:2:15: kernel of conv must be K or HxW, whole numbers from 1 to 4096, not ''"},
    {"input 1x8x8\nconv 2 kernel=2.5", "x.net:2:15: kernel of conv must be K or HxW"},
    {"input 1x8x8\nconv 2 kernel=3 bias=no", "x.net:2:22: bias of conv must be true or false, not 'no'"},
    {"input 3\nbatchnorm momentum=1.5",
     "x.net:2:20: momentum of batchnorm must be a number from 0 to 1, or none, not '1.5'"},
    {"input 3\nbatchnorm momentum=nan", "x.net:2:20: momentum of batchnorm must be"},
    {"input 3\nbatchnorm eps=0x1p3",
     "x.net:2:15: eps of batchnorm must be a number from 1e-30 to 1000000, not '0x1p3'"},
    {"input 3\nbatchnorm eps=none", "x.net:2:15: eps of batchnorm must be a number"},
    {"input 3\nbatchnorm eps=1e999", "x.net:2:15: eps of batchnorm must be a number"},
    {"input 1x2x3x4x5", "x.net:1:7: shape of input must be whole numbers from 1 to 16777216 with x between, "
                        "such as 1x28x28, not '1x2x3x4x5'"},
    {"input 3 mean=1,,2", "x.net:1:14: mean of input must be numbers from -1e30 to 1e30 with commas between, "
                          "at most 4, not '1,,2'"},
    {"input 3 mean=1,2,3,4,5", "x.net:1:14: mean of input must be numbers"},
    {"input 3x8x8 mean=1,2", "x.net:1:1: mean has 2 values for 3 channels: give one, or one for each"},
    {"input 3x3x3x3\nconv 3 kernel=1", "x.net:2:1: conv works on at most 3 dimensions, its input is 3x3x3x3; put 'reshape' before it"},
    {"input 3x3x3x3\nbatchnorm", "x.net:2:1: batchnorm works on at most 3 dimensions"},
    {"input 3x3x3x3\nlayernorm", "x.net:2:1: layernorm works on at most 3 dimensions"},
    {"input 3x3x3x3\nglobalavgpool", "x.net:2:1: globalavgpool works on at most 3 dimensions"},
    {"input 3x3x3x3\nlinear 2", "x.net:2:1: linear works on at most 3 dimensions"},
    {"input 3x3 mean=1,2", "x.net:1:1: mean has 2 values for 3 channels"},
    {"input 3x9\nconv 3 kernel=3",
     "x.net:2:1: conv works on maps CxHxW, its input is the sequence 3x9: use conv1d"},
    {"input 3x9x9\nconv1d 3 kernel=3",
     "x.net:2:1: conv1d works on sequences CxL, its input is the map 3x9x9: use conv"},
    {"input 9\nconv1d 3 kernel=3", "x.net:2:1: conv1d works on sequences CxL, its input has 9 features"},
    {"input 3x9\nconv1d 3 kernel=3x3", "x.net:2:17: kernel of conv1d must be a whole number from 1 to 4096"},
    {"input 3x9\nconv1d 3 kernel=4 dilation=4 padding=1",
     "x.net:2:1: the kernel reaches over 13 positions, the padded input has 11"},
    {"input 3x9\nmaxpool 1x2",
     "x.net:2:1: along a sequence a window has one dimension: kernel of maxpool is one number, not 1x2"},
    {"input 3x9\navgpool 4 padding=4",
     "x.net:2:1: a window over 4 positions would lie in the padding alone, which is 4 before and 4 behind"},
    {"input 3x2x9\nmaxpool 3 dilation=2 padding=0x2 padding_end=2",
     "x.net:2:1: the window reaches over 5 rows, the padded input has 4"},
    {"input 3x9x9\nmaxpool 3 padding=0 padding_end=0x3 stride=1",
     "x.net:2:1: a window over 3 columns would lie in the padding alone, which is 0 before and 3 behind"},
    {"input 3x1x9\nmaxpool 2x1 dilation=2 padding=1x0",
     "x.net:2:1: a window over 3 rows would lie in the padding alone, which is 1 before and 1 behind"},
    {"input 3x9\navgpool 14 padding=2", "x.net:2:1: the window reaches over 14 positions, the padded input has 13"},
    {"input 3x9\navgpool 2 dilation=1x2",
     "x.net:2:1: along a sequence a window has one dimension: dilation of avgpool is one number, not 1x2"},
    {"input 3x9\navgpool 2 padding_end=1x0",
     "x.net:2:1: along a sequence a window has one dimension: padding_end of avgpool is one number, not 1x0"},
    {"input 3x4x4\nconvtranspose 2 kernel=2 stride=2 output_padding=2",
     "x.net:2:1: output_padding=2 must be smaller than the stride or the dilation"},
    {"input 3x4x4\nconvtranspose 2 kernel=2 padding=1x2 padding_end=1x3",
     "x.net:2:1: the padding takes 5 columns away, the output would have 5 with them"},
    {"input 3x4\nconvtranspose 2 kernel=2",
     "x.net:2:1: convtranspose works on maps CxHxW, its input is the sequence 3x4: use convtranspose1d"},
    {"input 3x4x4\nconvtranspose 2 kernel=2 groups=2",
     "x.net:2:1: groups=2 must divide the 3 input and the 2 output channels"},
    {"input 3x4x4\nconvtranspose2d 2 kernel=2",
     "x.net:2:1: there is no layer 'convtranspose2d'; did you mean 'convtranspose'?"},
    {"input 3x4\nprelu 2", "x.net:2:1: prelu has one weight or one for each of the 3 channels, not 2"},
    {"input 3\nclip min=2 max=1", "x.net:2:1: min=2 is above max=1"},
    {"input 3\nclip 0 6", "x.net:2:6: '0' is one value too many for clip; options are written name=value, without blanks"},

    {"input 3\n: relu", "x.net:2:1: a label is missing before ':'"},
    {"input 3\na:", "x.net:2:3: the label 'a' has no layer; both stand on one line, as in 'a: relu'"},
    {"input 3\na/b: relu", "x.net:2:2: '/' cannot be in a label; letters, digits, '_', '.' and '-' can"},
    {"input 3\na: relu\na: relu", "x.net:3:1: the label 'a' is taken by line 2; choose another"},
    {"input 3\noptimizer.a: linear 3", "x.net:2:1: 'optimizer' names the training state"},
    {"input 3\na23456789012345678901234567890123456789012345678901234567890abcd: relu",
     "x.net:2:1: a label has at most 63 characters, this one has 64"},
    {"input 3\nblock1: relu\nadd blck1",
     "x.net:3:5: no layer above has the label 'blck1'; did you mean 'block1'?"},
    {"input 3\na: relu\nrelu\nadd from=a",
     "x.net:4:1: add needs the label of a second layer, as in 'add conv1'"},
    {"input 3\nrelu from=zebra",
     "x.net:2:11: no layer above has the label 'zebra'; the labels above are: none"},
    {"input 3\na: relu from=a", "x.net:2:14: no layer above has the label 'a'"},
    {"input 3\nlinear 2\nrelu from=linear1", "x.net:3:11: no layer above has the label 'linear1'"},
    {"a: input 3\n  b: relu\nrelu from=a",
     "x.net:2:6: the output of 'b' is never used: read it with from= or add, or remove the layer"},
    {"a: input 3\nrelu\nrelu from=a", "x.net:2:1: the output of 'relu' is never used"},

    {"input 3\nconv 3 kernel=3", "x.net:2:1: conv works on maps CxHxW, its input has 3 features"},
    {"input 1x4x4\nx:conv 3 kernel=5", "x.net:2:3: the kernel reaches over 5 rows, the padded input has 4"},
    {"a: input 3\nlinear 4\nadd a", "x.net:3:1: add needs two equal shapes, or 1 where their dimensions differ; here 4 and 3"},
    {"a: input 3x4x4\nconv 3 kernel=3\nmul a",
     "x.net:3:1: mul needs two equal shapes, or 1 where their dimensions differ; here 3x2x2 and 3x4x4"},
    {"a: input 3x4\nflatten\nsub a", "x.net:3:1: sub needs two equal shapes, or 1 where their dimensions differ; here 12 and 3x4"},
    {"input 3\nb: relu\ndiv", "x.net:3:1: div needs the label of a second layer"},
    {"a: input 3x4x4\nconv 3 kernel=3\nconcat a",
     "x.net:3:1: concat needs two shapes that are equal but for dimension 0 (axis=), here 3x2x2 and 3x4x4"},
    {"a: input 3x4\nb: relu\nconcat a axis=2",
     "x.net:3:1: axis=2 of concat is none of its input's dimensions, which count from 0: it is 3x4"},
    {"a: input 3x4\nb: relu\nconcat a axis=-1", "x.net:3:15: axis of concat must be a whole number from 0 to 3, not '-1'"},
    {"input 3x4x5\npermute 1,0",
     "x.net:2:1: permute needs each dimension of its input 3x4x5 once, counted from 0, such as 1,2,0"},
    {"input 3x4x5\npermute 0,1,1", "x.net:2:1: permute needs each dimension"},
    {"input 3x4x5\npermute 0,1,3", "x.net:2:1: permute needs each dimension"},
    {"input 3x4x5\npermute 0,1,1.5", "x.net:2:1: permute needs each dimension"},
    {"input 3x4\npermute 0", "x.net:2:1: permute needs each dimension of its input 3x4 once, counted from 0: 1,0"},
    {"input 3x4x5\nreshape 6x9", "x.net:2:1: reshape to 6x9 does not fit: its input 3x4x5 has 60 numbers"},
    {"input 3\nreshape 16777216x16777216x16777216", "x.net:2:1: reshape to 16777216x16777216x16777216 does not fit"},
    {"input 3\nreshape 3x0", "x.net:2:9: shape of reshape must be whole numbers from 1 to 16777216"},
    {"input 3x4x5\naffine 3",
     "x.net:2:1: affine's shape has the dimensions of its input, or 1 in their place; it is 3, the input 3x4x5"},
    {"input 3x4x5\naffine 3x2x1", "x.net:2:1: affine's shape has the dimensions of its input"},
    {"input 3\naffine 3 scale=false shift=false", "x.net:2:1: affine with scale=false and shift=false does nothing"},
    {"input 3\nsoftmax axis=1", "x.net:2:1: axis=1 of softmax is none of its input's dimensions, which count from 0: it is 3"},
    {"input 3\nbatchnorm frozen=true track=false", "x.net:2:1: frozen=true uses the running statistics"},
    {"input 3\nbatchnorm frozen=true ghost=4",
     "x.net:2:1: frozen=true never takes the batch's statistics, so that ghost batches have nothing to cut: drop ghost or frozen"},
    {"input 3\nbatchnorm frozen=true r_max=3",
     "x.net:2:1: frozen=true never takes the batch's statistics, which r_max and d_max correct: drop them or frozen"},
    {"input 3\nbatchnorm track=false d_max=3",
     "x.net:2:1: r_max and d_max correct towards the running statistics, track=false has none: drop them or track=false"},
    {"input 3\nbatchnorm ghost=4 d_max=3",
     "x.net:2:1: ghost batches make each batch's statistics noisier, r_max and d_max take that noise away again: drop ghost, or"},
    {"input 3\nbatchnorm renorm_steps=9",
     "x.net:2:1: renorm_steps is how many steps r_max and d_max take to rise to their values: give r_max or d_max, or drop"},
    {"input 3\nbatchnorm ghost=1",
     "x.net:2:1: ghost=1 leaves one value a channel, and one value has no variance: use ghost batches of 2 or more"},
    {"input 3\nbatchnorm r_max=0.5", "x.net:2:17: r_max of batchnorm must be a number from 1 to 1000000, not '0.5'"},
    {"input 3\nbatchnorm gost=4", "x.net:2:11: batchnorm has no option 'gost'; did you mean 'ghost'?"},
    {"input 6\ngroupnorm", "x.net:2:1: groupnorm needs a value for groups (groups of channels, each normalized by itself)"},
    {"input 6x2x2\ngroupnorm 4", "x.net:2:1: groupnorm's 4 groups must divide the 6 channels of its input"},
    {"input 6\ngroupnorm 6", "x.net:2:1: groupnorm would normalize each number of 6 by itself, and one number has no deviation"},
    {"input 6\ninstancenorm", "x.net:2:1: instancenorm would normalize each number of 6 by itself, and one number has no deviation"},
    {"input 6x1x1\ninstancenorm", "x.net:2:1: instancenorm would normalize each number of 6x1x1 by itself"},
    {"input 1\nlayernorm", "x.net:2:1: layernorm would normalize each number of 1 by itself"},
    {"input 6x2x2\ninstancenorm track=true", "x.net:2:1: instancenorm keeps no running statistics, a sample has its own in inference too"},
    {"input 6\nrmsnorm shift=true", "x.net:2:9: rmsnorm has no option 'shift'; its options are: eps, scale"},
    {"input 16777216x16x16",
     "x.net:1:1: the output of input would be 16777216x16x16; a dimension is at most 16777216"},
    {"input 16777216\nlinear 1024", "x.net:2:1: linear1.weight takes the net's parameters beyond 1073741824"},
    {"input 16777216x8x8\nconv 1048576 kernel=4096 padding=4096",
     "x.net:2:1: the output of conv would be 1048576x4105x4105"},
    {"input 16777216x8x8\nconv 1048576 kernel=4096 padding=2044",
     "x.net:2:1: conv1.weight takes the net's parameters beyond"},

    {"input 3\nrelu\001", "x.net:2:5: byte 0x01 cannot be here; a net text is plain ASCII save for comments"},
    {"input 3\nr\xc3\xa9lu", "x.net:2:2: byte 0xc3 cannot be here"},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        ek_graph graph;
        if (ek_graph_parse(refusals[i].text, "x.net", &graph) == EK_OK)
            fail_msg("\"%s\" was taken", refusals[i].text);
        if (strncmp(ek_error(), refusals[i].sentence, strlen(refusals[i].sentence)))
            fail_msg("\"%s\" gave\n  %s\nnot\n  %s", refusals[i].text, ek_error(), refusals[i].sentence);
    }
}

static void test_limits(void **state)
{
    (void)state;
    ek_text text = {0};
    ek_graph graph;
    ek_text_add(&text, "input 3\n");
    for (int i = 1; i < EK_MAX_LAYERS; i++) ek_text_add(&text, "relu\n");
    parse(text.data, &graph);
    assert_int_equal(graph.count, EK_MAX_LAYERS);
    ek_graph_free(&graph);
    ek_text_add(&text, "relu\n");
    assert_fails(EK_E_FORMAT, "x.net:10001:1: a net has at most 10000 layers",
                 ek_graph_parse(text.data, "x.net", &graph));
    ek_text_add(&text, "#%*s", EK_MAX_NET_TEXT, "");
    assert_fails(EK_E_FORMAT, "x.net: a net text has at most 1048576 bytes",
                 ek_graph_parse(text.data, "x.net", &graph));
    ek_text_free(&text);
}

/* --- reading and writing */

static void test_canonical(void **state)
{
    (void)state;
    static const struct {
        const char *text, *canonical;
    } cases[] = {
        {"input 1x8x8 mean=0 std=1\r\n\n\tconv 6 bias=true kernel=3x3 # a comment\n x:batchnorm eps=0.001 "
         "momentum=none\nrelu\n",
         "input   1x8x8\n"
         "conv1:  conv 6 kernel=3\n"
         "x:      batchnorm eps=0.001 momentum=none\n"
         "        relu\n"},
        {"in: input 3x8x8 mean=0.5,0.25,1e-05\nconv kernel=3x2 out=2\nconv 2 kernel=1\nleakyrelu "
         "0.01\nleakyrelu 0.2\ndropout p=0.5",
         "in:     input 3x8x8 mean=0.5,0.25,1e-5\n"
         "conv1:  conv 2 kernel=3x2\n"
         "conv2:  conv 2 kernel=1\n"
         "        leakyrelu\n"
         "        leakyrelu 0.2\n"
         "        dropout\n"},
        /* Numbers that labels have taken are passed over, above and below. */
        {"input 4\nlinear 4\nlinear2: linear 4\nlinear 4\nlinear3: linear 4", "input     4\n"
                                                                              "linear1:  linear 4\n"
                                                                              "linear2:  linear 4\n"
                                                                              "linear4:  linear 4\n"
                                                                              "linear3:  linear 4\n"},
        {"input 4x2x2\nlayernorm eps=1e-5 scale=true\ngroupnorm 2 eps=1e-3\ninstancenorm track=false scale=false shift=true\n"
         "rmsnorm eps=1.1920928955078125e-07\nbatchnorm ghost=0 r_max=1 d_max=0\nbatchnorm ghost=16\nbatchnorm r_max=3 d_max=5.5 "
         "renorm_steps=40",
         "input           4x2x2\n"
         "layernorm1:     layernorm\n"
         "groupnorm1:     groupnorm 2 eps=0.001\n"
         "instancenorm1:  instancenorm shift=true\n"
         "rmsnorm1:       rmsnorm\n"
         "batchnorm1:     batchnorm\n"
         "batchnorm2:     batchnorm ghost=16\n"
         "batchnorm3:     batchnorm r_max=3 d_max=5.5 renorm_steps=40\n"},
        {"input 3x8x8\nconv 3 kernel=3 padding=1 padding_end=2x0\nmaxpool 3 padding_end=1 ceil=true dilation=1 stride=2\n"
         "elu alpha=1\nprelu n=3\nclip max=6 min=0\nclip min=none\nhardsigmoid alpha=0.2 beta=0.5\n"
         "convtranspose 2 kernel=2 output_padding=1x0 stride=2 dilation=1\nhardsigmoid",
         "input            3x8x8\n"
         "conv1:           conv 3 kernel=3 padding=1 padding_end=2x0\n"
         "                 maxpool 3 stride=2 padding_end=1 ceil=true\n"
         "                 elu\n"
         "prelu1:          prelu 3\n"
         "                 clip min=0 max=6\n"
         "                 clip\n"
         "                 hardsigmoid alpha=0.2\n"
         "convtranspose1:  convtranspose 2 kernel=2 stride=2 output_padding=1x0\n"
         "                 hardsigmoid\n"},
        /* from= stays only where it says something. */
        {"input 4\na: relu from=b\n", NULL},
        {"b: input 4\na: relu from=b\nadd b from=a\nc: tanh\nadd a\nadd c from=b", NULL},
        {"b: input 4\na: relu from=b\nadd b from=a\nc: tanh\nd: silu from=a\nadd c from=d\nadd a",
         "b:     input 4\n"
         "a:     relu\n"
         "       add b\n"
         "c:     tanh\n"
         "d:     silu from=a\n"
         "       add c\n"
         "       add a\n"},
        {"a: input 2\nrelu\nb: tanh\nrelu from=a\nadd b from=a\nadd a", NULL},
        {"a: input 2\nb: relu\ntanh\nadd b from=a\nadd a", NULL},
        {"a: input 2\nb: relu\nc: tanh\nadd b from=a\nadd c\n", "a:     input 2\n"
                                                                "b:     relu\n"
                                                                "c:     tanh\n"
                                                                "       add b from=a\n"
                                                                "       add c\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ek_graph graph;
        if (!cases[i].canonical) {
            assert_int_not_equal(ek_graph_parse(cases[i].text, "x.net", &graph), EK_OK);
            continue;
        }
        parse(cases[i].text, &graph);
        assert_string_equal(graph.text, cases[i].canonical);
        ek_graph_free(&graph);
    }
}

static void assert_same_graph(const ek_graph *a, const ek_graph *b)
{
    assert_int_equal(a->count, b->count);
    for (int i = 0; i < a->count; i++) {
        const ek_node *m = &a->node[i], *n = &b->node[i];
        assert_ptr_equal(m->op, n->op);
        assert_string_equal(m->label, n->label);
        assert_memory_equal(m->input, n->input, sizeof m->input);
        assert_int_equal(m->consumers, n->consumers);
        assert_true(ek_shape_equal(m->out, n->out));
        for (int k = 0; m->op->attrs[k].name; k++) {
            assert_int_equal(m->attr[k].n, n->attr[k].n);
            for (int v = 0; v < m->attr[k].n; v++) {
                double x = m->attr[k].v[v], y = n->attr[k].v[v];
                assert_true(x == y || (isnan(x) && isnan(y)));
            }
        }
        assert_int_equal(m->param_count, n->param_count);
        for (int k = 0; k < m->param_count; k++) {
            assert_string_equal(m->param[k].name, n->param[k].name);
            assert_int_equal(m->param[k].redundant, n->param[k].redundant);
        }
    }
    assert_string_equal(a->text, b->text);
}

static void assert_round_trip(const char *text)
{
    ek_graph first, second;
    parse(text, &first);
    parse(first.text, &second);
    assert_same_graph(&first, &second);
    ek_graph_free(&first);
    ek_graph_free(&second);
}

/* A shipped net's layers without the comments above them. */
static const char *body(const char *text)
{
    while (*text == '#') text = strchr(text, '\n') + 1;
    return text;
}

static void test_shipped_nets_are_canonical(void **state)
{
    (void)state;
    for (int i = 0; ek_shipped_net_name(i); i++) {
        ek_graph graph;
        parse(ek_shipped_net_text(i), &graph);
        assert_string_equal(graph.text, body(ek_shipped_net_text(i)));
        ek_graph_free(&graph);
        assert_round_trip(ek_shipped_net_text(i));
        assert_int_equal(ek_shipped_net_find(ek_shipped_net_name(i)), i);
    }
    assert_int_equal(ek_shipped_net_find("lenet-nb"), -1);
    assert_null(ek_shipped_net_text(-1));
}

/* Any text that is a net: blocks of layers that keep or change the channels, some of them residual. */
static void random_net(ek_random *random, ek_text *out)
{
    int c = 1 + (int)ek_random_below(random, 4);
    ek_text_add(out, "x0: input %dx%dx%d%s\n", c, 8 + (int)ek_random_below(random, 4), 8,
                ek_random_below(random, 2) ? " std=0.3" : "");
    for (int i = 1, blocks = 1 + (int)ek_random_below(random, 8); i < blocks; i++) {
        switch (ek_random_below(random, 6)) {
        case 0:
            ek_text_add(out, "conv %d kernel=%dx3 padding=1x1 stride=1\n",
                        c = 1 + (int)ek_random_below(random, 4), 1 + 2 * (int)ek_random_below(random, 2));
            break;
        case 1:
            ek_text_add(out, "batchnorm momentum=%.*g eps=%g\n", 1 + (int)ek_random_below(random, 17),
                        ek_random_uniform(random), 1e-7 + ek_random_uniform(random));
            break;
        case 2: ek_text_add(out, "dropout %.17g\n", ek_random_uniform(random) * 0.9); break;
        case 3:
            ek_text_add(out, "l%d: leakyrelu %s\n", i, ek_random_below(random, 2) ? "0.01" : "-1.25e-7");
            break;
        case 4: ek_text_add(out, "maxpool 3 stride=1 padding=1\n"); break;
        case 5:
            ek_text_add(out, "r%d: relu\nconv %d kernel=3 padding=1 groups=%d bias=%s\nadd r%d\n", i, c, c,
                        ek_random_below(random, 2) ? "true" : "false", i);
            break;
        }
    }
    if (ek_random_below(random, 2)) ek_text_add(out, "flatten\nlinear 3 bias=false\nsoftmax\n");
}

static void test_random_nets_round_trip(void **state)
{
    (void)state;
    ek_random random = ek_random_start(7, EK_STREAM_TEST, 0);
    for (int i = 0; i < 300; i++) {
        ek_text text = {0};
        random_net(&random, &text);
        assert_ok(ek_text_status(&text));
        assert_round_trip(text.data);
        ek_text_free(&text);
    }
}

/* Shipped nets with bytes changed, dropped, doubled or lines swapped: taken or refused, with a place. */
static void test_mutations(void **state)
{
    (void)state;
    static const char bytes[] = "0123456789.x,=:#-+e \t\n\r_abcdflnoprt\377\001";
    ek_random random = ek_random_start(11, EK_STREAM_TEST, 1);
    int nets = 0, taken = 0;
    while (ek_shipped_net_name(nets)) nets++;
    for (int i = 0; i < 6000; i++) {
        const char *source = body(ek_shipped_net_text((int)ek_random_below(&random, (uint64_t)nets)));
        size_t length = strlen(source);
        char *text = ek_calloc(length + 2, 1);
        assert_non_null(text);
        memcpy(text, source, length);
        for (uint64_t edits = 1 + ek_random_below(&random, 4); edits > 0; edits--) {
            size_t at = ek_random_below(&random, length);
            char byte = bytes[ek_random_below(&random, sizeof bytes - 1)];
            switch (ek_random_below(&random, 3)) {
            case 0: text[at] = byte; break;
            case 1: memmove(text + at, text + at + 1, length - at); break;
            case 2: text[at] = text[ek_random_below(&random, length)]; break;
            }
        }
        ek_graph graph;
        if (ek_graph_parse(text, "x.net", &graph) == EK_OK) {
            assert_round_trip(graph.text);
            ek_graph_free(&graph);
            taken++;
        } else if (strncmp(ek_error(), "x.net:", 6)) {
            fail_msg("no place in \"%s\" for\n%s", ek_error(), text);
        }
        ek_free(text);
    }
    assert_in_range(taken, 100, 5900);
}

/* --- parameters */

typedef struct expected_net {
    const char *name, *input, *output;
    int64_t trained, buffers, stored; /* numbers: redundant biases are stored, not trained */
    const char *tensors[16];          /* some of "NAME SHAPE", in order */
} expected_net;

static const expected_net expected_nets[] = {
    {"lenet-bn",
     "1x28x28",
     "10",
     44652,
     452,
     45330,
     {"net.0.weight 6x1x5x5", "net.0.bias 6", "net.1.weight 6", "net.1.bias 6", "net.1.running_mean 6",
      "net.1.running_var 6", "net.1.num_batches_tracked number", "net.4.weight 16x6x5x5",
      "net.9.weight 120x256", "net.10.weight 120", "net.12.weight 84x120", "net.13.running_var 84",
      "net.15.weight 10x84", "net.15.bias 10"}},
    {"lenet",
     "1x28x28",
     "10",
     44426,
     0,
     44426,
     {"net.0.weight 6x1x5x5", "net.0.bias 6", "net.3.weight 16x6x5x5", "net.3.bias 16",
      "net.7.weight 120x256", "net.7.bias 120", "net.9.weight 84x120", "net.9.bias 84", "net.11.weight 10x84",
      "net.11.bias 10"}},
    {"mlp-bn",
     "1x28x28",
     "10",
     243210,
     896,
     244554,
     {"layers.1.weight 256x784", "layers.1.bias 256", "layers.2.weight 256",
      "layers.2.num_batches_tracked number", "layers.4.weight 128x256", "layers.5.running_mean 128",
      "layers.7.weight 64x128", "layers.8.bias 64", "layers.10.weight 10x64", "layers.10.bias 10"}},
    {"mlp",
     "1x28x28",
     "10",
     242762,
     0,
     242762,
     {"layers.1.weight 256x784", "layers.3.weight 128x256", "layers.5.weight 64x128", "layers.7.weight 10x64",
      "layers.7.bias 10"}},
    {"simple-net",
     "3",
     "3",
     15,
     6,
     24,
     {"fc1.weight 3x3", "fc1.bias 3", "bn1.weight 3", "bn1.running_var 3"}},
    {"simple-model",
     "1x28x28",
     "10",
     203786,
     512,
     204554,
     {"fc1.weight 256x784", "bn1.weight 256", "fc2.weight 10x256", "fc2.bias 10"}},
    {"resnet20",
     "3x32x32",
     "10",
     272474,
     1568,
     274042,
     {"conv1.weight 16x3x3x3", "bn1.weight 16", "layer1.0.conv1.weight 16x16x3x3", "layer1.0.bn1.weight 16",
      "layer1.2.bn2.bias 16", "layer2.0.conv1.weight 32x16x3x3", "layer2.0.shortcut.0.weight 32x16x1x1",
      "layer2.0.shortcut.1.running_mean 32", "layer3.0.conv1.weight 64x32x3x3",
      "layer3.0.shortcut.0.weight 64x32x1x1", "layer3.2.conv2.weight 64x64x3x3", "linear.weight 10x64",
      "linear.bias 10"}},
};

static void assert_net(const expected_net *expected, ek_graph *graph)
{
    char text[EK_SHAPE_TEXT];
    assert_string_equal(ek_shape_text(graph->node[0].out, text), expected->input);
    assert_string_equal(ek_shape_text(graph->node[graph->count - 1].out, text), expected->output);
    int64_t trained = 0, buffers = 0, stored = 0;
    const char *const *tensor = expected->tensors;
    for (int i = 0; i < graph->count; i++) {
        for (int k = 0; k < graph->node[i].param_count; k++) {
            const ek_param *param = &graph->node[i].param[k];
            char line[200];
            snprintf(line, sizeof line, "%s %s", param->name, ek_shape_text(param->shape, text));
            if (*tensor && !strcmp(line, *tensor)) tensor++;
            if (param->role == EK_ROLE_COUNTER) continue;
            bool buffer = param->role == EK_ROLE_RUNNING_MEAN || param->role == EK_ROLE_RUNNING_VAR;
            trained += param->grad ? param->count : 0;
            buffers += buffer ? param->count : 0;
            stored += param->count;
            assert_int_equal(param->grad == NULL, buffer || param->redundant);
        }
    }
    if (*tensor) fail_msg("%s has no tensor %s, or in another place", expected->name, *tensor);
    assert_int_equal(trained, expected->trained);
    assert_int_equal(buffers, expected->buffers);
    assert_int_equal(stored, expected->stored);
}

static void test_shipped_nets(void **state)
{
    (void)state;
    enum { NETS = sizeof expected_nets / sizeof *expected_nets };
    for (int i = 0; i < NETS; i++) {
        ek_graph graph;
        parse(ek_shipped_net_text(ek_shipped_net_find(expected_nets[i].name)), &graph);
        assert_ok(ek_graph_allocate(&graph));
        assert_net(&expected_nets[i], &graph);
        ek_graph_free(&graph);
    }
    assert_null(ek_shipped_net_name(NETS));
}

static void test_redundant_biases(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int by; /* index of the normalization that makes layer 1's bias redundant, or -1 */
    } cases[] = {
        {"input 3\nlinear 3\nbatchnorm", 2},
        {"input 3x4x4\nconv 2 kernel=3 padding=1\nbatchnorm", 2},
        {"input 3\nlinear 3\nbatchnorm track=false", 2},
        {"input 3\nlinear 3 bias=false\nbatchnorm", -1},
        {"input 3\nlinear 3\nbatchnorm frozen=true", -1},
        {"input 3\nlinear 3\nrelu\nbatchnorm", -1},
        {"input 3\na: linear 3\nb: batchnorm\nadd a", -1},
        {"input 3\na: linear 3\nb: batchnorm\nbatchnorm from=a\nadd b", -1},
        {"i: input 3\na: linear 3\nb: relu from=i\nc: batchnorm from=a\nadd b", 3},
        {"input 3\nlinear 3\nbatchnorm ghost=4", 2},
        {"input 3\nlinear 3\nbatchnorm r_max=3 d_max=5", 2},
        {"input 3x4x4\nconvtranspose 2 kernel=3 stride=2\nbatchnorm", 2},
        {"input 3x4x4\nconv 4 kernel=3\ninstancenorm", 2},
        {"input 3x4x4\nconv 4 kernel=3\ngroupnorm 4", 2},
        {"input 3x4x4\nconv 4 kernel=3\ngroupnorm 2", -1},
        {"input 3x4x4\nconv 4 kernel=3\nlayernorm", -1},
        {"input 3\nlinear 4\nrmsnorm", -1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ek_graph graph;
        parse(cases[i].text, &graph);
        assert_ok(ek_graph_allocate(&graph));
        ek_graph_init(&graph, EK_INIT_DEFAULT, 3);
        const ek_node *by = ek_graph_redundant_by(&graph, &graph.node[1]);
        assert_int_equal(by ? by->id : -1, cases[i].by);
        const ek_param *bias = ek_node_param(&graph.node[1], EK_ROLE_BIAS);
        if (bias) {
            assert_int_equal(bias->redundant, cases[i].by >= 0);
            assert_int_equal(bias->grad == NULL, bias->redundant);
            assert_int_equal(bias->data[0] == 0, bias->redundant);
        }
        ek_graph_free(&graph);
    }
}

typedef struct moments {
    double low, high, mean, deviation;
} moments;

static moments moments_of(const ek_param *param)
{
    moments m = {.low = INFINITY, .high = -INFINITY};
    double squares = 0;
    for (int64_t i = 0; i < param->count; i++) {
        double x = param->data[i];
        m.low = fmin(m.low, x);
        m.high = fmax(m.high, x);
        m.mean += x / (double)param->count;
        squares += x * x / (double)param->count;
    }
    m.deviation = sqrt(squares - m.mean * m.mean);
    return m;
}

/* Uniform numbers fill their bounds, and have the deviation bound/sqrt(3). */
static void assert_uniform(const ek_param *param, double bound)
{
    moments m = moments_of(param);
    assert_true(m.low >= -bound && m.low < -0.95 * bound && m.high <= bound && m.high > 0.95 * bound);
    assert_true(fabs(m.mean) < 0.03 * bound);
    assert_true(fabs(m.deviation - bound / sqrt(3)) < 0.02 * bound);
}

static void test_init(void **state)
{
    (void)state;
    ek_graph graph;
    parse("input 4x6x6\nconv 250 kernel=3x5 groups=2\nrelu\nflatten\nlinear 50\nbatchnorm", &graph);
    assert_ok(ek_graph_allocate(&graph));
    ek_param *conv = graph.node[1].param, *linear = graph.node[4].param, *norm = graph.node[5].param;
    const double fan_in = 2 * 3 * 5, fan_out = 125 * 3 * 5;

    ek_graph_init(&graph, EK_INIT_DEFAULT, 1);
    assert_uniform(&conv[0], 1 / sqrt(fan_in));
    assert_uniform(&conv[1], 1 / sqrt(fan_in));
    assert_uniform(&linear[0], 1 / sqrt(250 * 4 * 2));
    assert_true(moments_of(&linear[1]).low == 0 && moments_of(&linear[1]).high == 0); /* redundant */
    float first = conv[0].data[0], second = linear[0].data[0];
    assert_true(first != second);

    ek_graph_init(&graph, EK_INIT_DEFAULT, 2);
    assert_true(conv[0].data[0] != first && linear[0].data[0] != second);
    norm[0].data[0] = norm[1].data[0] = norm[2].data[0] = norm[3].data[0] = 9;
    norm[4].counter = 9;
    ek_graph_init(&graph, EK_INIT_DEFAULT, 1);
    assert_true(conv[0].data[0] == first && linear[0].data[0] == second);
    assert_true(norm[0].data[0] == 1 && norm[1].data[0] == 0 && norm[2].data[0] == 0 &&
                norm[3].data[0] == 1 && norm[4].counter == 0);

    ek_graph_init(&graph, EK_INIT_XAVIER, 1);
    assert_uniform(&conv[0], sqrt(6 / (fan_in + fan_out)));
    assert_true(moments_of(&conv[1]).low == 0 && moments_of(&conv[1]).high == 0);

    ek_graph_init(&graph, EK_INIT_KAIMING, 1);
    moments m = moments_of(&linear[0]);
    double deviation = sqrt(2.0 / (250 * 4 * 2));
    assert_true(fabs(m.mean) < 0.02 * deviation && fabs(m.deviation - deviation) < 0.02 * deviation);
    assert_true(m.high > 3.5 * deviation);
    assert_true(moments_of(&conv[1]).high == 0);
    ek_graph_free(&graph);
}

/* Fans are counted as PyTorch counts them; prelu begins with a number of its own, whatever the rule and the seed. */
static void test_init_of_transposed_and_prelu(void **state)
{
    (void)state;
    ek_graph graph;
    parse("input 40x6x6\nconvtranspose 20 kernel=3x5 groups=2\nprelu 20", &graph);
    assert_ok(ek_graph_allocate(&graph));
    const ek_param *conv = graph.node[1].param, *slope = graph.node[2].param;
    assert_true(conv[1].count == 20 && conv[0].shape.dim[0] == 40 && conv[0].shape.dim[1] == 10);
    assert_true(slope->count == 20 && slope->data[19] == 0.25f);
    slope->data[19] = 3;
    ek_graph_init(&graph, EK_INIT_DEFAULT, 1);
    assert_uniform(&conv[0], 1 / sqrt(10 * 3 * 5));
    ek_graph_init(&graph, EK_INIT_XAVIER, 1);
    assert_uniform(&conv[0], sqrt(6.0 / (10 * 3 * 5 + 20 * 3 * 5)));
    assert_true(slope->data[0] == 0.25f && slope->data[19] == 0.25f);
    ek_graph_free(&graph);
}

/* Each allocation fails in turn: an error, nothing left behind. */
static void test_out_of_memory(void **state)
{
    (void)state;
    const char *text = ek_shipped_net_text(ek_shipped_net_find("resnet20"));
    for (failing f = {0}; fail_next(&f);) {
        ek_graph graph;
        f.status = ek_graph_parse(text, "x.net", &graph);
        if (f.status == EK_OK) {
            f.status = ek_graph_allocate(&graph);
            ek_graph_free(&graph);
        }
    }
}

/* docs/net-text.md knows every layer and every option. */
static void test_documented(void **state)
{
    (void)state;
    unsigned char *page;
    size_t size;
    assert_ok(ek_file_read(EK_DOCS "/net-text.md", 1 << 20, &page, &size));
    const char *table = strstr((const char *)page, "\n| layer |");
    assert_non_null(table);
    const ek_op *op;
    for (int i = 0; (op = ek_op_at(i)); i++) {
        char word[80];
        snprintf(word, sizeof word, "`%s`", op->name);
        const char *row = strstr(table, word);
        if (!row) fail_msg("the page lacks %s", word);
        size_t length = strcspn(row, "\n");
        for (int k = 0; op->attrs[k].name; k++) {
            const ek_attr_spec *spec = &op->attrs[k];
            snprintf(word, sizeof word, spec->positional ? "%s (*first*)" : "`%s`", spec->name);
            const char *found = strstr(row, word);
            if (!found || found > row + length) fail_msg("the page's row on %s lacks %s", op->name, word);
        }
    }
    ek_free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_canonical),
        cmocka_unit_test(test_shipped_nets_are_canonical),
        cmocka_unit_test(test_random_nets_round_trip),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_shipped_nets),
        cmocka_unit_test(test_redundant_biases),
        cmocka_unit_test(test_init),
        cmocka_unit_test(test_init_of_transposed_and_prelu),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_documented),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
