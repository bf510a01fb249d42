/* What the fuzzing harnesses share. tests/fuzz/fuzz_x.c gives any bytes to one reader (fuzz_one), and where they are taken
 * goes on as a user would. A harness is linked with libFuzzer (preset fuzz) or with replay.c, which runs files and some
 * mutations of them; fuzz.c looks after each input:
 *
 *   - all memory of the library is given back
 *   - no more than FUZZ_MEMORY of it is asked for, which is far more than what the inputs are worth */
#ifndef EK_TESTS_FUZZ_H
#define EK_TESTS_FUZZ_H

#include "evenkeel.h"

enum { FUZZ_MEMORY = 1 << 25 };

/* --- what a harness defines */

/* Before the first input. */
void fuzz_start(void);
void fuzz_one(const unsigned char *data, size_t size);
/* Its own changes to an input, through LLVMFuzzerMutate; gives the new size. */
typedef size_t (*fuzz_mutator)(unsigned char *data, size_t size, size_t room, unsigned seed);
/* NULL: none. */
extern const fuzz_mutator fuzz_mutate;

/* --- what it may use */

/* Of one thread. */
ek_context *fuzz_context(void);

/* Ends the process, so that the input is found. */
void fuzz_require(bool condition, const char *what);
#define FUZZ_OK(expression) fuzz_require((expression) == EK_OK, #expression)

/* A reader's answer; true: it took the input. Else there must be a sentence, fit for a terminal, and the cause may not be
 * want of memory: inputs are small. */
bool fuzz_took(ek_status status);
/* The same where an input may rightly ask for much: a net text does so in a line. */
bool fuzz_built(ek_status status);

/* Puts the bytes into a file of this name, in a folder of this process in memory; its path lives as long as the
 * process. */
const char *fuzz_file(const char *name, const void *data, size_t size);
/* The same without bytes: the path of a file to be written. */
const char *fuzz_path(const char *name);

/* A net that came from an input, used: two samples run, where that takes no more than a moment. */
void fuzz_use_net(ek_net *net);
/* The same for data, of a specification, or with `item` of a file of unlabelled items: some items are read. What is
 * taken in memory must give the same when it stays in its file, if it can. */
void fuzz_use_data(const char *spec, const ek_shape *item);
/* The same for an image: read grey and in colour, and as an item. */
void fuzz_use_image(const char *path);

/* For mutators. Makes the length and the data of a safetensors file fit its header; gives the new size. */
size_t fuzz_mend_safetensors(unsigned char *data, size_t size, size_t room);
size_t fuzz_mutate_safetensors(unsigned char *data, size_t size, size_t room, unsigned seed);

/* --- libFuzzer's side */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);

#endif
