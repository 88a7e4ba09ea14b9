/* SPDX-License-Identifier: Apache-2.0 */

/* Locks between processes: claims of chunks, turns, and patience; and stores where there are none. */

#include <signal.h>

#include "cache/store/store_internal.h"
#include "content_fixture.h"
#include "regfs/log.h"

#define lock_test(function) cmocka_unit_test_setup_teardown(function, layer_setup, layer_teardown)

/* ---- claims ---- */

static int claim(struct content *c, size_t first, size_t end, size_t *ret_end)
{
        *ret_end = 99;
        return content_claim(c, first, end, ret_end);
}

static void claims_exclude_each_other(void **state)
{
        struct layer *l = *state;
        struct content *a = open_content(l), *b = open_content(l);
        size_t end;

        assert_int_equal(claim(a, 1, 3, &end), 0);
        assert_int_equal(end, 3);
        assert_int_equal(claim(b, 1, 5, &end), -EAGAIN);
        assert_int_equal(end, 3);
        assert_int_equal(claim(b, 2, 3, &end), -EAGAIN);
        assert_int_equal(end, 3);
        /* As much as is free. */
        assert_int_equal(claim(b, 0, 5, &end), 0);
        assert_int_equal(end, 1);
        assert_int_equal(claim(b, 3, 5, &end), 0);
        assert_int_equal(end, 5);
        /* Those of one opening don't. */
        assert_int_equal(claim(a, 1, 3, &end), 0);
        content_release(a, 1, 2);
        assert_int_equal(claim(b, 0, 5, &end), 0);
        assert_int_equal(end, 2);
        content_close(a);
        assert_int_equal(claim(b, 0, 5, &end), 0);
        assert_int_equal(end, 5);
        content_close(b);
}

static void claim_ends_with_its_process(void **state)
{
        struct layer *l = *state;
        struct content *c = open_content(l);
        int ready[2];
        size_t end;
        char byte;
        pid_t pid;

        assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
        fflush(NULL);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct content *own = NULL;
                struct store *s = NULL;

                CHECK(store_open(l->place.store, &s, NULL) == 0);
                CHECK(content_open(s, &l->digest, "plain", &l->table, &own, NULL) == 0);
                CHECK(content_claim(own, 2, 4, &end) == 0);
                CHECK(write(ready[1], "x", 1) == 1);
                for (;;)
                        pause();
        }
        assert_int_equal(read(ready[0], &byte, 1), 1);
        assert_int_equal(claim(c, 2, 5, &end), -EAGAIN);
        assert_int_equal(end, 4);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        assert_int_equal(claim(c, 2, 5, &end), 0);
        assert_int_equal(end, 5);
        close(ready[0]);
        close(ready[1]);
        content_close(c);
}

static void claims_without_locks_always_succeed(void **state)
{
        struct layer *l = *state;
        struct content *a = open_content(l), *b = open_content(l);
        size_t end;

        store_do_without_locks(l->store, "the test says so");
        assert_int_equal(claim(a, 0, 5, &end), 0);
        assert_int_equal(claim(b, 0, 5, &end), 0);
        assert_int_equal(end, 5);
        content_release(a, 0, 5);
        content_close(a);
        content_close(b);
}

static void claims_in_a_read_only_store_always_succeed(void **state)
{
        struct layer *l = *state;
        struct content *c = publish_and_open(l);
        size_t end;

        content_close(c);
        l->store->read_only = true;
        c = open_content(l);
        assert_true(reads_chunk(l, c, 1));
        assert_int_equal(claim(c, 0, 5, &end), 0);
        assert_int_equal(end, 5);
        content_release(c, 0, 5);
        content_close(c);
}

/* ---- turns ---- */

static void turn_is_one_callers(void **state)
{
        struct layer *l = *state;
        struct store_turn a = STORE_TURN_INIT, b = STORE_TURN_INIT, c = STORE_TURN_INIT;

        layer_open_store(l);
        assert_int_equal(store_turn_try(l->store, "toc x", &a), 0);
        assert_int_equal(store_turn_try(l->store, "toc x", &b), -EAGAIN);
        assert_int_equal(b.fd, -1);
        assert_int_equal(store_turn_try(l->store, "toc y", &c), 0);
        store_turn_tell(&a, 4711);
        assert_int_equal(store_turn_progress(l->store, "toc x"), 4711);
        assert_int_equal(store_turn_progress(l->store, "toc y"), 0);
        store_turn_end(&a);
        assert_int_equal(store_turn_try(l->store, "toc x", &b), 0);
        store_turn_end(&b);
        store_turn_end(&c);
        store_turn_end(&c);
}

static void turn_needs_no_locks(void **state)
{
        struct layer *l = *state;
        struct store_turn a, b;

        layer_open_store(l);
        store_do_without_locks(l->store, "the test says so");
        assert_int_equal(store_turn_try(l->store, "toc x", &a), 0);
        assert_int_equal(store_turn_try(l->store, "toc x", &b), 0);
        store_turn_tell(&a, 1);
        store_turn_end(&a);
        store_turn_end(&b);
        assert_false(exists(&l->place, "lock"));
}

static void read_only_store_gets_no_lock_file(void **state)
{
        struct layer *l = *state;
        struct store_turn a;

        layer_open_store(l);
        l->store->read_only = true;
        assert_int_equal(store_turn_try(l->store, "toc x", &a), 0);
        store_turn_end(&a);
        assert_int_equal(store_turn_progress(l->store, "toc x"), 0);
        assert_false(exists(&l->place, "lock"));
}

static void patience_is_renewed_by_progress(void **state)
{
        struct patience p;
        uint64_t pause;

        (void) state;
        patience_begin(&p, 1000);
        assert_true(patience_left(&p, 0, &pause));
        assert_int_equal(pause, 10);
        for (int k = 0; k < 10; k++)
                assert_true(patience_left(&p, 0, &pause));
        assert_int_equal(pause, 200);
        p.since -= 999; /* as if it had begun so long ago */
        assert_true(patience_left(&p, 1, &pause));
        assert_int_equal(pause, 10);
        p.since -= 1001;
        assert_false(patience_left(&p, 1, &pause));
        assert_true(patience_left(&p, 2, &pause));
}

/* ---- filesystems ---- */

static void locks_that_fail_are_done_without(void **state)
{
        struct layer *l = *state;
        char log[300];
        int fds[2];

        snprintf(log, sizeof(log), "%s/log", l->place.path);
        assert_int_equal(log_open(LOG_LEVEL_INFO, log, NULL), 0);
        layer_open_store(l);
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        close(fds[0]);
        close(fds[1]);
        /* No file at all: an error that is no conflict. */
        assert_int_equal(store_lock(l->store, fds[0], F_WRLCK, 0, 1), 0);
        assert_false(atomic_load(&l->store->locks));
        assert_int_equal(store_lock(l->store, fds[0], F_WRLCK, 0, 1), 0);
        assert_int_equal(lines_with(log, "locks do not work here"), 1);
}

static void words_of_other_machines_are_found(void **state)
{
        struct layer *l = *state;
        struct content *here, *there;

        layer_open_store(l);
        l->store->remote = true;
        atomic_store(&l->store->locks, false);
        here = open_content(l);
        there = open_content(l);
        assert_int_equal(content_write(there, 0, bytes_of(l, 0)), 0);
        assert_int_equal(content_write(there, 1, bytes_of(l, 1)), 0);
        assert_true(reads_chunk(l, there, 0));
        /* A copy of the words knows nothing of it until somebody looks. */
        assert_false(content_has(here, 0));
        assert_true(reads_chunk(l, here, 0));
        assert_true(content_has(here, 0));
        assert_false(content_has(here, 1));
        content_refresh(here, 0, CHUNKS);
        assert_true(content_has(here, 1));
        assert_false(content_has(here, 3));
        assert_true(reads(l, here, 4000, 9000));
        content_close(here);
        content_close(there);
}

static void without_holes_only_whole_layers_are_kept(void **state)
{
        struct layer *l = *state;
        struct content *c;

        layer_open_store(l);
        l->store->sparse = false;
        c = open_content(l);
        assert_false(content_keeps(c));
        assert_int_equal(content_write(c, 0, bytes_of(l, 0)), -EOPNOTSUPP);
        assert_false(exists(&l->place, CONTENT));
        content_close(c);

        assert_int_equal(publish(l, 10007), 0);
        c = open_content(l);
        for (size_t i = 0; i < CHUNKS; i++)
                assert_true(reads_chunk(l, c, i));
        content_close(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                lock_test(claims_exclude_each_other),
                lock_test(claim_ends_with_its_process),
                lock_test(claims_without_locks_always_succeed),
                lock_test(claims_in_a_read_only_store_always_succeed),
                lock_test(turn_is_one_callers),
                lock_test(turn_needs_no_locks),
                lock_test(read_only_store_gets_no_lock_file),
                cmocka_unit_test(patience_is_renewed_by_progress),
                lock_test(words_of_other_machines_are_found),
                lock_test(without_holes_only_whole_layers_are_kept),
                lock_test(locks_that_fail_are_done_without),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
