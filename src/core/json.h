/* JSON by jansson, whose readers and writers do not always notice that memory ran out: a letter is then missing
 * somewhere. Here that is an error. */
#ifndef EK_CORE_JSON_H
#define EK_CORE_JSON_H

#include "core/text.h"

#include <jansson.h>

/* *json is the caller's to release; flags are those of json_loadb. EK_E_FORMAT leaves the sentence to the caller, for whom
 * *error says what is wrong. */
ek_status ek_json_read(const char *text, size_t length, size_t flags, json_t **json, json_error_t *error);

/* Adds the JSON; flags are those of json_dumps. */
ek_status ek_json_write(const json_t *json, size_t flags, ek_text *to);

#endif
