#include "before_after.h"

#include "common.h"
#include "output.h"

#include <string.h>

ek_status cli_open_any_data(const char *spec, ek_split split, const ek_net *net, ek_dataset **out)
{
    bool csv = cli_ends_with(spec, ".csv") || cli_ends_with(spec, ".csv.gz");
    if (!strchr(spec, ',') && !csv && cli_is_file(spec))
        return ek_dataset_open_items(spec, ek_net_input_shape(net), out);
    return ek_dataset_open(spec, split, out);
}

ek_status cli_before_after_open(cli_before_after *of, const char *spec, const ek_dataset *data)
{
    if (ek_dataset_classes(data) == 0) return EK_OK;
    return ek_dataset_open(spec, EK_SPLIT_ANY, &of->data);
}

void cli_before_after_close(cli_before_after *of)
{
    ek_dataset_destroy(of->data);
    *of = (cli_before_after){0};
}

ek_status cli_before_after_measure(const cli_before_after *of, ek_net *net, int64_t batch, ek_metrics *out)
{
    return of->data ? ek_evaluate(net, of->data, batch, out) : EK_OK;
}

static json_t *metrics_json(const ek_metrics *metrics)
{
    json_t *object = json_object();
    cli_json_number(object, "loss", metrics->loss);
    cli_json_number(object, "accuracy", metrics->accuracy);
    return object;
}

void cli_before_after_json(const cli_before_after *of, json_t *object)
{
    if (!of->data) return;
    json_object_set_new(object, "measured_on", json_integer(of->before.count));
    json_object_set_new(object, "before", metrics_json(&of->before));
    json_object_set_new(object, "after", metrics_json(&of->after));
}

void cli_before_after_print(const cli_before_after *of)
{
    char before[CLI_TEXT_SIZE], after[CLI_TEXT_SIZE], count[CLI_TEXT_SIZE];
    cli_table table;
    if (!of->data) return;
    cli_table_begin(&table, "|>before|>after");
    cli_measure(before, of->before.accuracy);
    cli_table_row(&table, "accuracy", before, cli_measure(after, of->after.accuracy));
    cli_measure(before, of->before.loss);
    cli_table_row(&table, "loss", before, cli_measure(after, of->after.loss));
    printf("\nmeasured on %s samples\n", cli_count(count, of->before.count));
    cli_table_print(&table);
    cli_table_free(&table);
}
