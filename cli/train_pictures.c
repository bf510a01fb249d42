#include "train_pictures.h"

#include "output.h"

bool cli_events_open(cli_events *events, const char *folder)
{
    *events = (cli_events){0};
    if (!folder || ek_event_file_create(folder, &events->file) == EK_OK) return true;
    cli_fail_status();
    return false;
}

static void check(cli_events *events, ek_status status)
{
    if (status == EK_OK || events->failed) return;
    events->failed = true;
    cli_fail("%s; the event file ends there", ek_error());
}

void cli_events_add(cli_events *events, const ek_event *event, const ek_net *net, const ek_observer *observer)
{
    if (!events->file || events->failed) return;
    events->begun = true;
    check(events, ek_event_file_add(events->file, event, net, observer));
}

void cli_events_close(cli_events *events)
{
    check(events, ek_event_file_close(events->file, events->begun));
    events->file = NULL;
}

bool cli_report_write(const char *path, const char *title, const char *about, const ek_observer *observer)
{
    ek_report *report = NULL;
    ek_status status = ek_report_create(title, &report);
    if (status == EK_OK) {
        ek_report_text(report, about);
        ek_report_training(report, observer);
        status = ek_report_write(report, path);
    }
    ek_report_destroy(report);
    if (status != EK_OK) cli_fail_status();
    return status == EK_OK;
}
