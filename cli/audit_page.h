/* The page of an audit (audit --report). */
#ifndef CLI_AUDIT_PAGE_H
#define CLI_AUDIT_PAGE_H

#include "evenkeel.h"

/* data NULL: there was none. */
EK_MUST_CHECK ek_status cli_audit_page(const ek_audit *audit, const char *model, const char *data, const char *path);

#endif
