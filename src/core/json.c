#include "core/json.h"

#include <errno.h>

typedef struct source {
    const char *at, *end;
    bool failed; /* an allocation did */
} source;

/* One character at a time: whatever failed since the one before can still be seen by errno. */
static size_t next(void *buffer, size_t size, void *data)
{
    source *from = data;
    (void)size;
    from->failed |= errno == ENOMEM;
    if (from->failed || from->at == from->end) return 0;
    *(char *)buffer = *from->at++;
    return 1;
}

ek_status ek_json_read(const char *text, size_t length, size_t flags, json_t **json, json_error_t *error)
{
    source from = {text, text + length, false};
    errno = 0;
    *json = json_load_callback(next, &from, flags, error);
    if (!from.failed && errno != ENOMEM) return *json ? EK_OK : EK_E_FORMAT;
    json_decref(*json);
    *json = NULL;
    return ek_fail(EK_E_MEMORY, "out of memory for %zu bytes of JSON", length);
}

static int append(const char *bytes, size_t size, void *text)
{
    ek_text_add(text, "%.*s", (int)size, bytes);
    return 0;
}

ek_status ek_json_write(const json_t *json, size_t flags, ek_text *to)
{
    if (!json || json_dump_callback(json, append, to, flags) != 0) return ek_fail(EK_E_MEMORY, "out of memory for JSON");
    return ek_text_status(to);
}
