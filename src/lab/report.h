/* What other makers of reports need beside the public header. */
#ifndef EK_LAB_REPORT_H
#define EK_LAB_REPORT_H

#include "core/text.h"

/* Keeps a failure, with the sentence of ek_error, for ek_report_write; EK_OK is none. The first one stays. */
void ek_report_keep(ek_report *report, ek_status status);

/* A paragraph, taken from a text that is then free. */
void ek_report_take_text(ek_report *report, ek_text *text);

#endif
