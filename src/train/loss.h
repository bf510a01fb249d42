/* Mean cross-entropy of a net's logits, for training and evaluation alike. */
#ifndef EK_TRAIN_LOSS_H
#define EK_TRAIN_LOSS_H

#include "graph/net.h"

/* Room for one batch; begins as all zeros. */
typedef struct ek_loss {
    int64_t capacity;
    double *each;     /* by sample */
    int64_t *correct; /* by piece of work */
} ek_loss;

ek_status ek_loss_reserve(ek_loss *loss, int64_t samples);
void ek_loss_free(ek_loss *loss);

/* The sum over the n samples of the last forward pass, added up in their order; *correct counts those whose
 * largest logit was their class's. ek_net_output_grad receives the gradient of the sum divided by `mean_of`; 0: it is not
 * wanted. */
double ek_loss_sum(ek_loss *loss, ek_net *net, int64_t n, const int32_t *labels, int64_t mean_of,
                   int64_t *correct);

#endif
