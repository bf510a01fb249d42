/* What commands print: messages, numbers for people, tables and JSON. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include "evenkeel.h"

#include <jansson.h>

/* "evenkeel: sentence" on stderr; gives CLI_FAILED. */
__attribute__((format(printf, 1, 2))) int cli_fail(const char *format, ...);
int cli_fail_status(void); /* the library's last sentence */
/* "evenkeel: note: ..." on stderr, where nothing failed. */
__attribute__((format(printf, 1, 2))) void cli_note(const char *format, ...);

/* Memory, zeroed, and texts of any length; without memory the program ends. */
void *cli_alloc(size_t count, size_t size);
__attribute__((format(printf, 1, 2))) char *cli_text(const char *format, ...); /* free it */

/* Texts in the caller's buffer, which they return. */
#define CLI_TEXT_SIZE 112
char *cli_count(char text[CLI_TEXT_SIZE], int64_t count);     /* "44,426" */
char *cli_bytes(char text[CLI_TEXT_SIZE], double bytes);      /* "1.2 MiB" */
char *cli_duration(char text[CLI_TEXT_SIZE], double seconds); /* "0:07", "1:02:03" */
char *cli_measure(char text[CLI_TEXT_SIZE], double measure);  /* "0.4123"; "-" where it is not finite */
char *cli_real(char text[CLI_TEXT_SIZE], double value);       /* 0.1: the fewest digits that give it back; nan */
char *cli_shape(char text[CLI_TEXT_SIZE], ek_shape shape);    /* "1x28x28" */

/* How many numbers a value of this shape has. */
int64_t cli_numbers(ek_shape shape);

/* A text on stdout in lines of at most 80 characters, the first begun at `column`, later ones indented to `indent`. */
void cli_print_wrapped_at(const char *text, int column, int indent);
static inline void cli_print_wrapped(const char *text) { cli_print_wrapped_at(text, 0, 0); }

/* A table whose columns are as wide as their widest cell. */
#define CLI_MAX_COLUMNS 32
typedef struct cli_table {
    int columns, cells, room;
    bool right[CLI_MAX_COLUMNS]; /* numbers stand to the right */
    char **cell;
} cli_table;

/* Headings are given with '|' between; one that begins with '>' is a column of numbers. */
void cli_table_begin(cli_table *table, const char *headings);
/* As many const char * as there are columns. */
void cli_table_row(cli_table *table, ...);
void cli_table_cells(cli_table *table, const char *const *cells); /* the same from an array */
void cli_table_print(const cli_table *table);
void cli_table_free(cli_table *table);

/* Before all others: from now on objects are known that have holes for want of memory. */
void cli_json_begin(void);
/* Whether none has so far. */
bool cli_json_is_whole(void);

/* JSON. A number that is not finite has no JSON: set leaves the member out. */
void cli_json_number(json_t *object, const char *key, double number);
json_t *cli_json_text(const char *text); /* bytes that are not UTF-8 become '?' */
json_t *cli_json_shape(ek_shape shape);
json_t *cli_json_floats(const float *value, int64_t count); /* finite ones */
/* One line. False, with errno: it could not be written, or memory ran out when it was made. */
bool cli_json_write(FILE *file, const json_t *object);
/* The same with all digits, for what is read back. */
bool cli_json_write_exact(FILE *file, const json_t *object);
int cli_json_answer(json_t *object); /* on stdout; takes the reference; gives the exit code */

#endif
