/* A net as C source: one file with its header, for products. */
#ifndef EK_CCODE_CCODE_H
#define EK_CCODE_CCODE_H

#include "graph/net.h"

#endif
