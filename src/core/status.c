#include "core/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Fixed, because reporting that memory ran out must not need memory. Large, because an import names all that it cannot
 * read. */
static _Thread_local char message[8192];

const char *ek_error(void) { return message; }

const char *ek_status_name(ek_status status)
{
    switch (status) {
#define X(name, text) \
    case EK_##name: return "EK_" #name;
        EK_STATUS_MAP(X)
#undef X
    }
    return "unknown";
}

const char *ek_status_text(ek_status status)
{
    switch (status) {
#define X(name, text) \
    case EK_##name: return text;
        EK_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
const char *ek_version(void)
{
    return TEXT(EK_VERSION_MAJOR) "." TEXT(EK_VERSION_MINOR) "." TEXT(EK_VERSION_PATCH);
}

/* Names and words out of files stand in it, and control characters would be obeyed by a terminal: each becomes '?', as does
 * what is no UTF-8. */
static void make_plain(char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        const unsigned char *start = at;
        if (!ek_next_character(&at)) memset(text + (start - (const unsigned char *)text), '?', (size_t)(at - start));
    }
}

static void set_message(char *text)
{
    make_plain(text);
    strcpy(message, text);
}

ek_status ek_fail(ek_status status, const char *format, ...)
{
    /* By way of a copy: an argument may point into the present message. */
    char text[sizeof message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    set_message(text);
    return status;
}

ek_status ek_fail_errno(const char *format, ...)
{
    int error = errno;
    char text[sizeof message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (error == ENOMEM) return ek_fail(EK_E_MEMORY, "%s: out of memory", text);
    return ek_fail(error == ENOENT ? EK_E_NOT_FOUND : EK_E_IO, "%s: %s", text, strerror(error));
}

ek_status ek_fail_in(ek_status status, const char *format, ...)
{
    char text[sizeof message];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (used < 0) return status;
    if ((size_t)used < sizeof text) snprintf(text + used, sizeof text - (size_t)used, "%s", message);
    set_message(text);
    return status;
}
