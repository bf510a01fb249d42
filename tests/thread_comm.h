/* Ranks as threads of one program, with messages through memory: what MPI does, for tests of what is built on it. */
#ifndef THREAD_COMM_H
#define THREAD_COMM_H

#include "testing.h"

#include "comm/comm.h"
#include "core/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 9 };

typedef struct message {
    struct message *next;
    int from, to, tag;
    size_t bytes;
    char data[];
} message;

typedef struct post {
    pthread_mutex_t lock;
    message *first;
    int silent; /* a rank whose messages get lost; -1: none */
} post;

static post the_post = {.lock = PTHREAD_MUTEX_INITIALIZER, .silent = -1};

struct ek_requests {
    ek_transfer at[4 * MOST_RANKS];
    int count;
};

static ek_status thread_create_requests(ek_comm *comm, int most, ek_requests **out)
{
    (void)comm;
    assert_true(most <= 4 * MOST_RANKS);
    return EK_NEW(*out, 1);
}

static void thread_destroy_requests(ek_requests *r) { ek_free(r); }

static ek_status thread_start(ek_comm *comm, ek_requests *r, const ek_transfer *transfer, int count)
{
    r->count = 0;
    for (int i = 0; i < count; i++) {
        const ek_transfer *t = &transfer[i];
        if (!t->sends) {
            r->at[r->count++] = *t;
            continue;
        }
        if (comm->rank == the_post.silent) continue;
        message *m = malloc(sizeof *m + t->bytes), **end;
        *m = (message){NULL, comm->rank, t->peer, t->tag, t->bytes};
        memcpy(m->data, t->data, t->bytes);
        pthread_mutex_lock(&the_post.lock);
        for (end = &the_post.first; *end; end = &(*end)->next) {}
        *end = m;
        pthread_mutex_unlock(&the_post.lock);
    }
    return EK_OK;
}

static bool take(int rank, const ek_transfer *t)
{
    bool found = false;
    pthread_mutex_lock(&the_post.lock);
    for (message **at = &the_post.first; *at && !found; found ? NULL : (at = &(*at)->next)) {
        message *m = *at;
        if (m->to != rank || m->from != t->peer || m->tag != t->tag) continue;
        assert_int_equal(m->bytes, t->bytes);
        memcpy(t->data, m->data, m->bytes);
        *at = m->next;
        free(m);
        found = true;
        break;
    }
    pthread_mutex_unlock(&the_post.lock);
    return found;
}

static ek_status thread_test(ek_comm *comm, ek_requests *r, bool *done)
{
    for (int i = 0; i < r->count;) {
        if (take(comm->rank, &r->at[i]))
            r->at[i] = r->at[--r->count];
        else
            i++;
    }
    *done = r->count == 0;
    return EK_OK;
}

static void thread_destroy(ek_comm *comm)
{
    ek_comm_end(comm);
    ek_free(comm);
}

static const ek_driver thread_driver = {thread_create_requests, thread_destroy_requests, thread_start, thread_test, thread_destroy};

typedef struct rank_of {
    int rank, ranks;
    void (*work)(ek_comm *comm, void *argument);
    void *argument;
} rank_of;

static void *run_rank(void *argument)
{
    rank_of *r = argument;
    ek_comm *comm;
    assert_ok(EK_NEW(comm, 1));
    assert_ok(ek_comm_begin(comm, r->rank, r->ranks, &thread_driver));
    ek_comm_be_patient(comm, false);
    r->work(comm, r->argument);
    ek_comm_destroy(comm);
    return NULL;
}

/* Runs it as each rank, on a thread of its own; argument [ranks] of `size` bytes each. */
static void run_ranks(int ranks, void (*work)(ek_comm *comm, void *argument), void *argument, size_t size)
{
    pthread_t thread[MOST_RANKS];
    rank_of of[MOST_RANKS];
    for (int i = 0; i < ranks; i++) {
        of[i] = (rank_of){i, ranks, work, (char *)argument + (size_t)i * size};
        assert_int_equal(pthread_create(&thread[i], NULL, run_rank, &of[i]), 0);
    }
    for (int i = 0; i < ranks; i++) pthread_join(thread[i], NULL);
    while (the_post.first) {
        message *m = the_post.first;
        the_post.first = m->next;
        free(m);
    }
}

#endif
