/* A model as C source, for convert. */
#ifndef CLI_C_SOURCE_H
#define CLI_C_SOURCE_H

#include "evenkeel.h"

#include <jansson.h>

typedef struct cli_c_source {
    const char *name, *data; /* NULL: from the file's name; none */
    bool int8, quiet;
    int64_t samples;
} cli_c_source;

/* Writes it. False: it failed, which was said. */
bool cli_c_source_write(const cli_c_source *source, const ek_net *net, const char *path, ek_c_answer *answer);
/* What to say of it. */
json_t *cli_c_source_json(const ek_c_answer *answer);
void cli_c_source_print(const ek_c_answer *answer);

#endif
