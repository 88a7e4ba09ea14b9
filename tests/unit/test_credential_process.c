/* SPDX-License-Identifier: Apache-2.0 */

/* Helper programs of every kind that can go wrong. */

#include "credential_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "regfs/thread.h"

/* Nothing may be left to reap when a helper has been run. */
static int get(const char *name, uint64_t limit_ms, struct credential *ret, struct error *e)
{
        int r = credential_process_get(name, "h.example", limit_ms, ret, e);

        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        return r;
}

static void expect(const char *name, const char *user, const char *secret, const char *identity_token)
{
        _cleanup_credential_ struct credential c = {};
        struct error e = ERROR_INIT;

        if (get(name, LIMIT_MS, &c, &e) < 0)
                fail_msg("%s", e.message);
        assert_true(user ? str_eq(c.user, user) : !c.user);
        assert_true(secret ? str_eq(c.secret, secret) : !c.secret);
        assert_true(identity_token ? str_eq(c.identity_token, identity_token) : !c.identity_token);
}

static void expect_error(const char *name, uint64_t limit_ms, int result, const char *text)
{
        struct credential c = { .user = (char *) "untouched" };
        struct error e = ERROR_INIT;

        assert_int_equal(get(name, limit_ms, &c, &e), result);
        assert_int_equal(e.kind, ERROR_DENIED);
        assert_int_equal(e.code, -result);
        if (!strstr(e.message, text))
                fail_msg("no \"%s\" in: %s", text, e.message);
        assert_null(strstr(e.message, SECRET));
        assert_string_equal(c.user, "untouched");
}

static void a_helper_gets_the_host_and_gives_a_credential(_unused_ void **state)
{
        make_helper("good", "echo '{\"ServerURL\":\"h.example\",\"Username\":\"u\",\"Secret\":\"p:\\u00e4\"}'");
        expect("good", "u", "p:\xc3\xa4", NULL);
        assert_asked("docker-credential-good get h.example\n");
}

static void the_host_is_all_that_is_on_standard_input(_unused_ void **state)
{
        make_file("bin/docker-credential-count",
                  "#!/bin/sh\n"
                  "printf '{\"Username\":\"%s\",\"Secret\":\"%s\"}' \"$(wc -c | tr -d ' ')\" \"$#\"\n",
                  0700);
        expect("count", "9", "1", NULL);
}

static void the_user_token_marks_an_identity_token(_unused_ void **state)
{
        make_helper("identity", "echo '{\"Username\":\"<token>\",\"Secret\":\"refresh\"}'");
        expect("identity", NULL, NULL, "refresh");
}

static void nothing_found_is_an_anonymous_success(_unused_ void **state)
{
        make_helper("none", "echo 'credentials not found in native keychain'; exit 1");
        make_helper("blank", "echo '{\"Username\":\"\",\"Secret\":\"\"}'");
        expect("none", NULL, NULL, NULL);
        expect("blank", NULL, NULL, NULL);
}

static void a_failure_quotes_the_first_line_that_was_written(_unused_ void **state)
{
        make_helper("out", "printf '\\n  no \\033key\\nsecond\\n'; exit 1");
        make_helper("err", "echo 'no display' >&2; exit 7");
        make_helper("both", "echo 'to stdout'; echo 'to stderr' >&2; exit 1");
        make_helper("silent", "exit 2");
        make_helper("killed", "kill -TERM $$");
        expect_error("out", LIMIT_MS, -EACCES,
                     "docker-credential-out get for h.example: it failed with status 1: \"no \\x1bkey\"");
        expect_error("err", LIMIT_MS, -EACCES, "status 7: \"no display\"");
        expect_error("both", LIMIT_MS, -EACCES, "\"to stdout\"");
        expect_error("silent", LIMIT_MS, -EACCES, "it failed with status 2");
        expect_error("killed", LIMIT_MS, -EACCES, "it was ended by signal 15");
}

static void what_may_hold_a_secret_is_not_quoted(_unused_ void **state)
{
        make_helper("fails", "echo '{\"Username\":\"u\",\"Secret\":\"" SECRET "\"}'; echo why >&2; exit 1");
        make_helper("plain", "echo " SECRET "; echo why >&2");
        make_helper("half", "echo '{\"Username\":\"u\",\"Secret\":\"" SECRET "'");
        make_helper("nouser", "echo '{\"Username\":\"\",\"Secret\":\"" SECRET "\"}'");
        expect_error("fails", LIMIT_MS, -EACCES, "status 1: \"why\"");
        expect_error("plain", LIMIT_MS, -EACCES, "\"why\"");
        expect_error("half", LIMIT_MS, -EACCES, "no JSON object");
        expect_error("nouser", LIMIT_MS, -EACCES, "a secret without a user");
}

static void garbage_is_an_error(_unused_ void **state)
{
        make_helper("nothing", "");
        make_helper("array", "echo '[]'");
        make_helper("types", "echo '{\"Username\":1,\"Secret\":\"s\"}'");
        make_helper("missing", "echo '{\"Username\":\"u\"}'");
        make_helper("twice", "echo '{\"Username\":\"u\",\"Secret\":\"s\"}{}'");
        make_helper("binary", "head -c 5000 /dev/urandom | tr -d '{'; printf '\\0'");
        expect_error("nothing", LIMIT_MS, -EACCES, "no JSON object");
        expect_error("array", LIMIT_MS, -EACCES, "no JSON object");
        expect_error("types", LIMIT_MS, -EACCES, "no JSON object");
        expect_error("missing", LIMIT_MS, -EACCES, "no JSON object");
        expect_error("twice", LIMIT_MS, -EACCES, "no JSON object");
        expect_error("binary", LIMIT_MS, -EACCES, "no JSON object");
}

static void output_is_bounded(_unused_ void **state)
{
        make_helper("flood", "cat /dev/zero");
        make_helper("brink",
                    "printf '{\"Username\":\"u\",\"Secret\":\"p\"}'; head -c 1048547 /dev/zero | tr '\\0' ' '");
        make_helper("beyond",
                    "printf '{\"Username\":\"u\",\"Secret\":\"p\"}'; head -c 1048548 /dev/zero | tr '\\0' ' '");
        make_helper("noisy", "head -c 3000000 /dev/zero >&2; echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
        expect_error("flood", LIMIT_MS, -EFBIG, "more than 1048576 bytes");
        expect("brink", "u", "p", NULL);
        expect_error("beyond", LIMIT_MS, -EFBIG, "more than 1048576 bytes");
        expect("noisy", "u", "p", NULL);
}

/* True when the process is gone; a zombie whose new parent is slow counts as that. */
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

static void a_hanging_helper_is_ended_at_the_limit_with_all_it_started(_unused_ void **state)
{
        _cleanup_free_ char *body = str_printf("sleep 1000 & echo $! >'%s'\nwait", in_home("child"));
        _cleanup_buf_ struct buf child = {};
        deadline_t deadline = deadline_in(LIMIT_MS);

        make_helper("hangs", body);
        expect_error("hangs", 300, -ETIMEDOUT, "no answer within 0.3 s");
        assert_int_equal(file_read(AT_FDCWD, in_home("child"), 100, &child, NULL), 0);
        while (!has_ended((pid_t) strtol(child.data, NULL, 10))) {
                assert_true(deadline_left(deadline) > 0);
                nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
        }
}

static void a_helper_that_closes_its_output_and_hangs_is_ended_too(_unused_ void **state)
{
        make_helper("closes", "exec >&- 2>&-; sleep 1000");
        make_helper("stubborn", "trap '' TERM INT HUP; echo '{\"Username\":\"u\",\"Secret\":\"" SECRET
                                "\"}'; while :; do sleep 1; done");
        expect_error("closes", 300, -ETIMEDOUT, "no answer");
        expect_error("stubborn", 300, -ETIMEDOUT, "no answer");
}

static void what_a_helper_leaves_behind_with_its_output_open_is_not_waited_for(_unused_ void **state)
{
        _cleanup_free_ char *body = str_printf(
                "sleep 1000 & echo $! >'%s'\necho '{\"Username\":\"u\",\"Secret\":\"p\"}'", in_home("child"));
        _cleanup_buf_ struct buf child = {};

        make_helper("agent", body);
        expect("agent", "u", "p", NULL);
        assert_int_equal(file_read(AT_FDCWD, in_home("child"), 100, &child, NULL), 0);
        assert_false(has_ended((pid_t) strtol(child.data, NULL, 10)));
        assert_int_equal(kill((pid_t) strtol(child.data, NULL, 10), SIGKILL), 0);
}

static void a_helper_that_ignores_its_input_does_no_harm(_unused_ void **state)
{
        make_file("bin/docker-credential-deaf", "#!/bin/sh\nexec <&-\necho '{\"Username\":\"u\",\"Secret\":\"p\"}'\n",
                  0700);
        for (int i = 0; i < 20; i++)
                expect("deaf", "u", "p", NULL);
}

static void a_helper_that_cannot_be_started_is_an_error(_unused_ void **state)
{
        make_file("bin/docker-credential-plain", "#!/bin/sh\n", 0600);
        make_file("bin/docker-credential-lost", "#!/nonexistent/interpreter\n", 0700);
        expect_error("missing", LIMIT_MS, -ENOENT,
                     "docker-credential-missing get for h.example: cannot be started from $PATH");
        expect_error("plain", LIMIT_MS, -EACCES, "cannot be started");
        expect_error("lost", LIMIT_MS, -ENOENT, "cannot be started");
}

static void a_name_that_leads_out_of_the_path_is_refused(_unused_ void **state)
{
        make_helper("good", "echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
        expect_error("x/../good", LIMIT_MS, -EACCES, "x/../good");
        expect_error("", LIMIT_MS, -EACCES, "no name of a credential helper");
}

static void a_host_that_is_too_long_for_a_pipe_is_refused(_unused_ void **state)
{
        _cleanup_free_ char *host = malloc(8193);
        struct credential c = {};
        struct error e = ERROR_INIT;

        assert_non_null(host);
        memset(host, 'x', 8192);
        host[8192] = '\0';
        make_helper("good", "echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
        assert_int_equal(credential_process_get("good", host, LIMIT_MS, &c, &e), -ENAMETOOLONG);
}

static unsigned count_descriptors(void)
{
        DIR *dir = opendir("/proc/self/fd");
        unsigned n = 0;

        assert_non_null(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

static void no_descriptor_is_left_open(_unused_ void **state)
{
        unsigned before = count_descriptors();

        make_helper("good", "echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
        make_helper("hangs", "sleep 1000");
        expect("good", "u", "p", NULL);
        expect_error("hangs", 50, -ETIMEDOUT, "");
        expect_error("missing", LIMIT_MS, -ENOENT, "");
        assert_int_equal(count_descriptors(), before);
}

/* Runs FUNCTION in a child of this test and gives its exit status. */
static int in_child(int (*function)(void))
{
        pid_t pid = fork();
        int status;

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(function());
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int run_good(void)
{
        struct credential c = {};
        int r = credential_process_get("good", "h.example", LIMIT_MS, &c, NULL);
        bool right = r == 0 && str_eq(c.user, "u") && str_eq(c.secret, "p");

        credential_clear(&c);
        return right ? 0 : 1;
}

static int run_without_stdio(void)
{
        for (int closed = 0; closed < 8; closed++) {
                pid_t pid = fork();
                int status;

                if (pid == 0) {
                        for (int fd = 0; fd < 3; fd++)
                                if (closed & 1 << fd)
                                        close(fd);
                        _exit(run_good());
                }
                if (waitpid(pid, &status, 0) != pid || status != 0)
                        return 1;
        }
        return 0;
}

static void a_process_without_standard_descriptors_can_run_helpers(_unused_ void **state)
{
        make_helper("good", "echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
        assert_int_equal(in_child(run_without_stdio), 0);
}

static int run_with_blocked_signals(void)
{
        const uint64_t ordinary = UINT64_MAX >> 33; /* 32 and 33 are the C library's own */
        struct credential c = {};
        sigset_t all;
        int r;
        bool right;

        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, NULL);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGCHLD, SIG_DFL);
        r = credential_process_get("signals", "h.example", LIMIT_MS, &c, NULL);
        right = r == 0 && (strtoull(c.user, NULL, 16) & ordinary) == 0 &&
                (strtoull(c.secret, NULL, 16) & ordinary) == 0;
        credential_clear(&c);
        return right ? 0 : 1;
}

/* A shell would not do: some unblock signals themselves when they start. */
static void helpers_start_with_default_signals(_unused_ void **state)
{
        make_file("bin/docker-credential-signals",
                  "#!/usr/bin/awk -f\n"
                  "BEGIN { while ((getline line < \"/proc/self/status\") > 0) { split(line, w); set[w[1]] = w[2] }\n"
                  "printf(\"{\\\"Username\\\":\\\"%s\\\",\\\"Secret\\\":\\\"%s\\\"}\\n\",\n"
                  "set[\"SigBlk:\"], set[\"SigIgn:\"]); exit }\n",
                  0700);
        assert_int_equal(in_child(run_with_blocked_signals), 0);
}

static int run_with_private_descriptors(void)
{
        /* What this test itself inherited without close-on-exec is not the question. */
        if (close_range(STDERR_FILENO + 1, ~0U, 0) < 0 || fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 77) != 77)
                return 2;
        return run_good();
}

static void helpers_inherit_the_standard_descriptors_only(_unused_ void **state)
{
        /* 10 and 255 are where dash and bash keep the script itself. */
        make_helper("good", "for fd in /proc/$$/fd/*; do\n"
                            "case ${fd##*/} in 0|1|2|10|255) ;; *) [ ! -e $fd ] || exit 1 ;; esac\ndone\n"
                            "echo '{\"Username\":\"u\",\"Secret\":\"p\"}'");
        assert_int_equal(in_child(run_with_private_descriptors), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_helper_gets_the_host_and_gives_a_credential),
                TEST(the_host_is_all_that_is_on_standard_input),
                TEST(the_user_token_marks_an_identity_token),
                TEST(nothing_found_is_an_anonymous_success),
                TEST(a_failure_quotes_the_first_line_that_was_written),
                TEST(what_may_hold_a_secret_is_not_quoted),
                TEST(garbage_is_an_error),
                TEST(output_is_bounded),
                TEST(a_hanging_helper_is_ended_at_the_limit_with_all_it_started),
                TEST(a_helper_that_closes_its_output_and_hangs_is_ended_too),
                TEST(what_a_helper_leaves_behind_with_its_output_open_is_not_waited_for),
                TEST(a_helper_that_ignores_its_input_does_no_harm),
                TEST(a_helper_that_cannot_be_started_is_an_error),
                TEST(a_name_that_leads_out_of_the_path_is_refused),
                TEST(a_host_that_is_too_long_for_a_pipe_is_refused),
                TEST(no_descriptor_is_left_open),
                TEST(a_process_without_standard_descriptors_can_run_helpers),
                TEST(helpers_start_with_default_signals),
                TEST(helpers_inherit_the_standard_descriptors_only),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
