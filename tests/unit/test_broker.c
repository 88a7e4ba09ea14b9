/* SPDX-License-Identifier: Apache-2.0 */

/* What a confined process gets through its broker, and what it does not get. */

#include "credential_fixture.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "regfs/broker.h"
#include "regfs/thread.h"

#define AUTH_FILE "run/containers/auth.json"
#define GOOD "echo '{\"Username\":\"u\",\"Secret\":\"p\"}'"
#define THREADS 8

static void configure(const char *text)
{
        make_file(AUTH_FILE, text, 0600);
}

static struct broker *start_with(int (*unmount)(void *, struct error *), void *context)
{
        const struct broker_options options = { .unmount = unmount, .context = context };
        struct broker *b = NULL;
        struct error e = ERROR_INIT;

        if (broker_start(&options, &b, &e) < 0)
                fail_msg("%s", e.message);
        credential_use_broker(b);
        return b;
}

static struct broker *start(void)
{
        return start_with(NULL, NULL);
}

static void stop(struct broker *b)
{
        credential_use_broker(NULL);
        broker_stop(b);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
}

static int find(const char *host, struct credential *ret, struct error *e)
{
        const struct credential_options options = { 0 };

        return credential_find(&options, host, "repository", ret, e);
}

static void expect(const char *host, const char *user, const char *secret)
{
        _cleanup_credential_ struct credential c = {};
        struct error e = ERROR_INIT;

        if (find(host, &c, &e) < 0)
                fail_msg("%s", e.message);
        assert_true(user ? str_eq(c.user, user) : !c.user);
        assert_true(secret ? str_eq(c.secret, secret) : !c.secret);
}

static void expect_error(struct broker *b, const char *name, uint64_t limit_ms, int result, const char *text)
{
        struct helper_output o = { 0 };
        struct error e = ERROR_INIT;

        assert_int_equal(broker_run_helper(b, name, "h.example", limit_ms, &o, &e), result);
        if (!strstr(e.message, text))
                fail_msg("no \"%s\" in: %s", text, e.message);
        assert_null(o.out.data);
}

static void nap(void)
{
        nanosleep(&(struct timespec) { .tv_nsec = 2000000 }, NULL);
}

/* A zombie that nobody has reaped yet counts as ended. */
static bool has_ended(pid_t pid)
{
        _cleanup_buf_ struct buf stat = {};
        char path[40];
        const char *name_end;

        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        if (file_read(AT_FDCWD, path, 64 * KIB, &stat, NULL) < 0)
                return true;
        name_end = strrchr(stat.data, ')');
        return name_end && name_end[2] == 'Z';
}

static void wait_for_end(pid_t pid)
{
        deadline_t deadline = deadline_in(LIMIT_MS);

        assert_true(pid > 1);
        for (; !has_ended(pid); nap())
                assert_true(deadline_left(deadline) > 0);
}

/* The number that a helper or a process has written, whole once it ends with a newline. */
static pid_t wait_for_number(const char *file)
{
        deadline_t deadline = deadline_in(LIMIT_MS);

        for (;; nap()) {
                _cleanup_buf_ struct buf text = {};

                if (file_read(AT_FDCWD, in_home(file), 100, &text, NULL) == 0 && text.len > 0 &&
                    text.data[text.len - 1] == '\n')
                        return (pid_t) strtol(text.data, NULL, 10);
                assert_true(deadline_left(deadline) > 0);
        }
}

/* ---- what it does ---- */

static void a_helper_is_run_by_the_broker(_unused_ void **state)
{
        _cleanup_free_ char *body = str_printf("echo $PPID >'%s'\n" GOOD, in_home("parent"));
        struct broker *b;

        configure("{\"credHelpers\":{\"h.example\":\"good\"}}");
        make_helper("good", body);
        b = start();
        expect("h.example", "u", "p");
        assert_asked("docker-credential-good get h.example\n");
        assert_int_not_equal(wait_for_number("parent"), getpid());
        stop(b);
}

static void each_request_runs_the_helper_again(_unused_ void **state)
{
        struct broker *b;

        configure("{\"credHelpers\":{\"h.example\":\"good\"}}");
        make_helper("good", GOOD);
        b = start();
        expect("h.example", "u", "p");
        make_helper("good", "echo '{\"Username\":\"u\",\"Secret\":\"renewed\"}'");
        expect("h.example", "u", "renewed");
        stop(b);
}

static void files_that_come_or_change_later_are_read(_unused_ void **state)
{
        struct broker *b = start();

        expect("h.example", NULL, NULL);
        configure("{\"auths\":{\"h.example\":{\"auth\":\"dTpw\"}}}"); /* u:p */
        expect("h.example", "u", "p");
        make_file("run/containers/new", "{\"auths\":{\"h.example\":{\"auth\":\"djpx\"}}}", 0600); /* v:q */
        assert_int_equal(rename(in_home("run/containers/new"), in_home(AUTH_FILE)), 0);
        expect("h.example", "v", "q");
        stop(b);
}

static void a_relative_file_is_found_from_the_directory_of_the_start(_unused_ void **state)
{
        const struct broker_options options = { .credentials.authfile = "auth.json" };
        _cleanup_free_ char *before = getcwd(NULL, 0);
        _cleanup_credential_ struct credential c = {};
        struct broker *b = NULL;

        make_file("auth.json", "{\"auths\":{\"h.example\":{\"auth\":\"dTpw\"}}}", 0600);
        assert_int_equal(chdir(home), 0);
        assert_int_equal(broker_start(&options, &b, NULL), 0);
        assert_int_equal(chdir("/"), 0);
        credential_use_broker(b);
        assert_int_equal(credential_find(&options.credentials, "h.example", "r", &c, NULL), 0);
        assert_string_equal(c.user, "u");
        assert_int_equal(chdir(before), 0);
        stop(b);
}

static void a_file_is_handed_on_to_its_last_byte(_unused_ void **state)
{
        _cleanup_buf_ struct buf text = {};
        char *spaces = malloc(CREDENTIAL_FILE_MAX + 2);
        struct error e = ERROR_INIT;
        struct broker *b = start();

        assert_non_null(spaces);
        memset(spaces, ' ', CREDENTIAL_FILE_MAX + 1);
        spaces[CREDENTIAL_FILE_MAX + 1] = '\0';
        configure(spaces);
        assert_int_equal(broker_read_file(b, in_home(AUTH_FILE), &text, &e), -EFBIG);
        assert_non_null(strstr(e.message, AUTH_FILE));
        spaces[CREDENTIAL_FILE_MAX] = '\0';
        spaces[CREDENTIAL_FILE_MAX - 1] = '!';
        configure(spaces);
        assert_int_equal(broker_read_file(b, in_home(AUTH_FILE), &text, &e), 0);
        assert_int_equal(text.len, CREDENTIAL_FILE_MAX);
        assert_string_equal(text.data, spaces);
        free(spaces);
        stop(b);
}

/* ---- what it refuses ---- */

static void only_helpers_that_a_file_names_are_run(_unused_ void **state)
{
        struct broker *b;

        make_helper("good", GOOD);
        make_helper("other", GOOD);
        configure("{\"credHelpers\":{\"h.example\":\"good\"}}");
        b = start();
        expect_error(b, "other", LIMIT_MS, -EACCES, "no credential file");
        expect_error(b, "", LIMIT_MS, -EACCES, "no name");
        configure(
                "{\"credsStore\":\"x/../good\", \"credHelpers\":{\"h.example\":\"\", \"i\": \"../x\", \"j\": \"a b\"}}");
        expect_error(b, "x/../good", LIMIT_MS, -EACCES, "no name");
        expect_error(b, "../x", LIMIT_MS, -EACCES, "no name");
        expect_error(b, "a b", LIMIT_MS, -EACCES, "no name");
        assert_int_equal(access(in_home("asked"), F_OK), -1);
        stop(b);
}

static void only_credential_files_are_read(_unused_ void **state)
{
        _cleanup_buf_ struct buf text = {};
        struct error e = ERROR_INIT;
        struct broker *b = start();

        make_file("secret", "x", 0600);
        assert_int_equal(broker_read_file(b, in_home("secret"), &text, &e), -EPERM);
        assert_int_equal(broker_read_file(b, in_home("run/containers/../containers/auth.json"), &text, &e), -EPERM);
        assert_int_equal(broker_read_file(b, "", &text, &e), -EPERM);
        assert_int_equal(text.len, 0);
        stop(b);
}

static void what_is_too_long_for_a_request_is_refused(_unused_ void **state)
{
        char longer[PATH_MAX + 1];
        struct helper_output o = { 0 };
        struct broker *b = start();

        memset(longer, 'x', PATH_MAX);
        longer[PATH_MAX] = '\0';
        assert_int_equal(broker_run_helper(b, longer, "h", LIMIT_MS, &o, NULL), -ENAMETOOLONG);
        assert_int_equal(broker_run_helper(b, "good", longer, LIMIT_MS, &o, NULL), -ENAMETOOLONG);
        stop(b);
}

static void without_a_way_to_unmount_none_is_had(_unused_ void **state)
{
        struct broker *b = start();

        assert_int_equal(broker_unmount(b, NULL), -EINVAL);
        stop(b);
}

/* ---- helpers that go wrong ---- */

static void limits_hold(_unused_ void **state)
{
        struct broker *b;

        configure("{\"credHelpers\":{\"a\":\"hangs\",\"b\":\"flood\",\"c\":\"fails\"}}");
        make_helper("hangs", "sleep 1000");
        make_helper("flood", "cat /dev/zero");
        make_helper("fails", "echo locked; exit 1");
        b = start();
        expect_error(b, "hangs", 200, -ETIMEDOUT, "docker-credential-hangs get for h.example: no answer within 0.2 s");
        expect_error(b, "flood", LIMIT_MS, -EFBIG, "more than 1048576 bytes");

        struct credential c = {};
        struct error e = ERROR_INIT;
        assert_int_equal(find("c", &c, &e), -EACCES);
        assert_non_null(strstr(e.message, "status 1: \"locked\""));
        stop(b);
}

static void what_a_helper_leaves_behind_with_its_output_open_is_not_waited_for(_unused_ void **state)
{
        _cleanup_free_ char *body = str_printf("sleep 1000 & echo $! >'%s'\n" GOOD, in_home("child"));
        struct broker *b;
        pid_t child;

        configure("{\"credHelpers\":{\"h.example\":\"agent\"}}");
        make_helper("agent", body);
        b = start();
        expect("h.example", "u", "p");
        child = wait_for_number("child");
        assert_false(has_ended(child));
        assert_int_equal(kill(child, SIGKILL), 0);
        stop(b);
}

/* The helper still writes when nobody wants its answer any more: it is ended, and the broker goes on. */
static void a_helper_whose_requester_has_died_is_ended(_unused_ void **state)
{
        _cleanup_free_ char *body = str_printf("echo $$ >'%s'\nwhile :; do echo x; sleep 0.01; done", in_home("pid"));
        struct broker *b;
        pid_t requester, helper;

        configure("{\"credHelpers\":{\"h.example\":\"endless\",\"i.example\":\"good\"}}");
        make_helper("endless", body);
        make_helper("good", GOOD);
        b = start();
        requester = fork();
        assert_true(requester >= 0);
        if (requester == 0) {
                struct helper_output o = { 0 };

                _exit(broker_run_helper(b, "endless", "h.example", LIMIT_MS, &o, NULL) == 0);
        }
        helper = wait_for_number("pid");
        assert_false(has_ended(helper));
        assert_int_equal(kill(requester, SIGKILL), 0);
        assert_int_equal(waitpid(requester, NULL, 0), requester);
        wait_for_end(helper);
        expect("i.example", "u", "p");
        stop(b);
}

static void *find_in_thread(void *arg)
{
        char host[40];
        struct credential c = {};
        int *right = arg;

        for (int i = 0; i < 4; i++) {
                bool hub = (i + *right) % 2;

                snprintf(host, sizeof(host), "%s.example", hub ? "h" : "i");
                if (find(host, &c, NULL) < 0 || !str_eq(c.secret, hub ? "for h.example" : "for i.example"))
                        return arg;
                credential_clear(&c);
        }
        return NULL;
}

static void threads_get_their_own_answers_at_once(_unused_ void **state)
{
        pthread_t threads[THREADS];
        int numbers[THREADS];
        struct broker *b;

        configure("{\"credHelpers\":{\"h.example\":\"echo\",\"i.example\":\"echo\"}}");
        make_helper("echo", "echo \"{\\\"Username\\\":\\\"u\\\",\\\"Secret\\\":\\\"for $host\\\"}\"");
        b = start();
        for (int i = 0; i < THREADS; i++) {
                numbers[i] = i;
                assert_int_equal(thread_start(&threads[i], "asks", find_in_thread, &numbers[i]), 0);
        }
        for (int i = 0; i < THREADS; i++) {
                void *failed;

                assert_int_equal(pthread_join(threads[i], &failed), 0);
                assert_null(failed);
        }
        stop(b);
}

static void *hang_in_thread(void *arg)
{
        struct helper_output o = { 0 };
        bool killed = broker_run_helper(arg, "hangs", "h.example", LIMIT_MS, &o, NULL) == 0 && WIFSIGNALED(o.status);

        helper_output_clear(&o);
        return killed ? arg : NULL;
}

static void a_helper_that_hangs_keeps_nobody_else_waiting(_unused_ void **state)
{
        _cleanup_free_ char *body = str_printf("echo $$ >'%s'\nsleep 1000", in_home("pid"));
        struct helper_output o = { 0 };
        struct broker *b;
        pthread_t thread;
        void *ended;

        configure("{\"credHelpers\":{\"h.example\":\"hangs\",\"i.example\":\"good\"}}");
        make_helper("hangs", body);
        make_helper("good", GOOD);
        b = start();
        assert_int_equal(thread_start(&thread, "hangs", hang_in_thread, b), 0);
        (void) wait_for_number("pid");
        assert_int_equal(broker_run_helper(b, "good", "i.example", LIMIT_MS, &o, NULL), 0);
        helper_output_clear(&o);
        assert_int_equal(kill(-wait_for_number("pid"), SIGKILL), 0);
        assert_int_equal(pthread_join(thread, &ended), 0);
        assert_ptr_equal(ended, b); /* killed, not timed out */
        stop(b);
}

/* ---- its life ---- */

static void a_dead_broker_is_an_error_of_each_request(_unused_ void **state)
{
        struct credential c = {};
        struct error e = ERROR_INIT;
        struct broker *b;

        configure("{\"credHelpers\":{\"h.example\":\"good\"}}");
        make_helper("good", GOOD);
        b = start();
        assert_int_equal(kill(broker_pid(b), SIGKILL), 0);
        wait_for_end(broker_pid(b));
        for (int i = 0; i < 3; i++) {
                assert_int_equal(find("h.example", &c, &e), -EPIPE);
                assert_int_equal(e.kind, ERROR_DENIED);
                assert_non_null(strstr(e.message, "has ended"));
        }
        assert_int_equal(broker_unmount(b, NULL), -EPIPE);
        stop(b);
}

static void a_broker_outlives_the_signals_that_end_a_service(_unused_ void **state)
{
        static const int numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE };
        struct broker *b;

        configure("{\"credHelpers\":{\"h.example\":\"good\"}}");
        make_helper("good", GOOD);
        b = start();
        expect("h.example", "u", "p"); /* it has come as far as to ignore them */
        for (size_t i = 0; i < ELEMENTSOF(numbers); i++)
                assert_int_equal(kill(broker_pid(b), numbers[i]), 0);
        expect("h.example", "u", "p");
        stop(b);
}

static void a_broker_ends_with_its_owner(_unused_ void **state)
{
        pid_t owner = fork(), broker;

        assert_true(owner >= 0);
        if (owner == 0) {
                struct broker *b = start();
                FILE *file = fopen(in_home("broker"), "we");

                fprintf(file, "%d\n", broker_pid(b));
                fclose(file);
                for (;;)
                        pause();
        }
        broker = wait_for_number("broker");
        assert_false(has_ended(broker));
        assert_int_equal(kill(owner, SIGKILL), 0);
        assert_int_equal(waitpid(owner, NULL, 0), owner);
        wait_for_end(broker);
}

/* True when a process has a socket and /dev/null open, and nothing else. */
static bool has_a_socket_alone(pid_t pid)
{
        char path[64], target[256];
        const struct dirent *entry;
        int sockets = 0, others = 0;
        ssize_t n;
        DIR *d;

        snprintf(path, sizeof(path), "/proc/%d/fd", pid);
        d = opendir(path);
        assert_non_null(d);
        while ((entry = readdir(d))) {
                n = readlinkat(dirfd(d), entry->d_name, target, sizeof(target) - 1);
                if (n < 0)
                        continue; /* . and .., or closed since */
                target[n] = '\0';
                if (str_after(target, "socket:"))
                        sockets++;
                else if (!str_eq(target, "/dev/null"))
                        others++;
        }
        closedir(d);
        return sockets == 1 && others == 0;
}

static void a_broker_keeps_nothing_but_its_socket(_unused_ void **state)
{
        deadline_t deadline = deadline_in(LIMIT_MS);
        char path[64], target[256];
        struct broker *b;
        int ends[2];
        ssize_t n;

        assert_int_equal(pipe(ends), 0);
        configure("{}");
        b = start();
        expect("h.example", NULL, NULL);
        /* The pipe of that request may still be on its way out. */
        for (; !has_a_socket_alone(broker_pid(b)); nap())
                assert_true(deadline_left(deadline) > 0);
        snprintf(path, sizeof(path), "/proc/%d/cwd", broker_pid(b));
        n = readlink(path, target, sizeof(target) - 1);
        assert_true(n > 0);
        target[n] = '\0';
        assert_string_equal(target, "/");
        assert_int_equal(getsid(broker_pid(b)), broker_pid(b));
        close(ends[0]);
        close(ends[1]);
        stop(b);
}

static int note_and_fail(void *context, struct error *e)
{
        FILE *file = fopen(context, "we");

        fprintf(file, "%d\n", getpid());
        fclose(file);
        return error_set(e, ERROR_MOUNT, EBUSY, "/mnt is busy");
}

static void unmounting_is_done_by_another_process_and_tells_why_not(_unused_ void **state)
{
        char file[300];
        struct error e = ERROR_INIT;
        struct broker *b;

        snprintf(file, sizeof(file), "%s", in_home("noted"));
        b = start_with(note_and_fail, file);
        assert_int_equal(broker_unmount(b, &e), -EBUSY);
        assert_int_equal(e.kind, ERROR_MOUNT);
        assert_string_equal(e.message, "/mnt is busy");
        assert_int_not_equal(wait_for_number("noted"), getpid());
        stop(b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_helper_is_run_by_the_broker),
                TEST(each_request_runs_the_helper_again),
                TEST(files_that_come_or_change_later_are_read),
                TEST(a_relative_file_is_found_from_the_directory_of_the_start),
                TEST(a_file_is_handed_on_to_its_last_byte),
                TEST(only_helpers_that_a_file_names_are_run),
                TEST(only_credential_files_are_read),
                TEST(what_is_too_long_for_a_request_is_refused),
                TEST(without_a_way_to_unmount_none_is_had),
                TEST(limits_hold),
                TEST(what_a_helper_leaves_behind_with_its_output_open_is_not_waited_for),
                TEST(a_helper_whose_requester_has_died_is_ended),
                TEST(threads_get_their_own_answers_at_once),
                TEST(a_helper_that_hangs_keeps_nobody_else_waiting),
                TEST(a_dead_broker_is_an_error_of_each_request),
                TEST(a_broker_outlives_the_signals_that_end_a_service),
                TEST(a_broker_ends_with_its_owner),
                TEST(a_broker_keeps_nothing_but_its_socket),
                TEST(unmounting_is_done_by_another_process_and_tells_why_not),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
