/* Many small parts of a file in one call.
 *
 * A read of its own for each part costs a call of the system's, about a microsecond, where the few hundred bytes that it brings
 * would take a tenth of it. A file that is mapped into memory needs no call; but where it is cut short, or the disk fails, a
 * look at it ends the process. So it is the system that looks: it copies the parts out of the mapping into a file in memory,
 * many at a time, and where one of them is not there says so. */
#ifndef EK_CORE_FILE_PARTS_H
#define EK_CORE_FILE_PARTS_H

#include "core/status.h"

typedef struct ek_file_parts ek_file_parts;

enum { EK_PART_BYTES = 4096 }; /* the longest part: of more the bytes cost more than the call */

/* Of a file of `size` bytes, which stays open for as long. *out NULL, and EK_OK: not here, since it is larger than the memory
 * that would hold it, or the system does not do it. */
ek_status ek_file_parts_open(int descriptor, int64_t size, ek_file_parts **out);
/* n parts of `bytes` bytes from the places `offset` on, one behind the other. Several threads at a time. False: not all of
 * them can be had; reading them one by one (ek_file_read_at) tells why. */
bool ek_file_parts_read(ek_file_parts *parts, const int64_t *offset, int64_t n, size_t bytes,
                        unsigned char *out);
void ek_file_parts_close(ek_file_parts *parts); /* NULL: nothing */

#endif
