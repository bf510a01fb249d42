/* The page of an audit (audit --report). */
#ifndef CLI_AUDIT_PAGE_H
#define CLI_AUDIT_PAGE_H

#include "evenkeel.h"

extern const char *const cli_severity_name[]; /* by ek_severity */

/* Whether all but layer and evidence is the same, so that it has to be said once only. */
bool cli_findings_alike(const ek_finding *a, const ek_finding *b);

/* data NULL: there was none. */
EK_MUST_CHECK ek_status cli_audit_page(const ek_audit *audit, const char *model, const char *data,
                                       const char *path);

#endif
