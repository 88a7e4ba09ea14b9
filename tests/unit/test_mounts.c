/* SPDX-License-Identifier: Apache-2.0 */

/* The kernel's table of mounts, and unmounting, with daemons that answer only what they must. Every test runs in a
 * child with mounts of its own; where that is not allowed it is skipped. */

#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>

#include <cmocka.h>

#include "regfs/io.h"
#include "regfs/mount.h"
#include "store_fixture.h"

#define DIGEST "sha256:" HEX_X

static const char *directory(const struct place *p, const char *name)
{
        static char path[4][300];
        static unsigned next;
        char *out = path[next++ % 4];

        snprintf(out, sizeof(path[0]), "%s/%s", p->path, name);
        return out;
}

static void answer(int fd, uint64_t unique, int error, const void *data, size_t n)
{
        struct {
                struct fuse_out_header header;
                char data[256];
        } out = { .header = {
                          .unique = unique, .error = error, .len = (uint32_t) (sizeof(struct fuse_out_header) + n) } };

        if (n > 0)
                memcpy(out.data, data, n);
        (void) !write(fd, &out, out.header.len);
}

/* Answers the kernel until the mount is gone. */
static void serve(int fd)
{
        static char in[1 << 20];
        const struct fuse_in_header *h = (const struct fuse_in_header *) (const void *) in;
        struct fuse_init_out init = { .major = FUSE_KERNEL_VERSION,
                                      .minor = FUSE_KERNEL_MINOR_VERSION,
                                      .max_write = 4096 };
        struct fuse_attr_out attr = { .attr = { .ino = 1, .mode = S_IFDIR | 0755, .nlink = 2 } };

        for (;;) {
                ssize_t n = read(fd, in, sizeof(in));

                if (n < 0 && (errno == EINTR || errno == ENOENT))
                        continue;
                if (n <= 0)
                        return;
                if (h->opcode == FUSE_INIT)
                        answer(fd, h->unique, 0, &init, sizeof(init));
                else if (h->opcode == FUSE_GETATTR)
                        answer(fd, h->unique, 0, &attr, sizeof(attr));
                else if (h->opcode != FUSE_FORGET && h->opcode != FUSE_DESTROY)
                        answer(fd, h->unique, -ENOSYS, NULL, 0);
        }
}

/* Mounts at PATH as regfs does; returns the daemon's side. */
static int mount_fuse(const char *path, const char *source, const char *type)
{
        int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
        char options[100];

        if (fd < 0)
                _exit(CHILD_SKIPS);
        snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
        if (mount(source, path, type, MS_NOSUID | MS_NODEV, options) < 0) {
                fprintf(stderr, "mount %s: %s\n", path, strerror(errno));
                _exit(errno == EPERM || errno == ENODEV ? CHILD_SKIPS : 1);
        }
        return fd;
}

/* A daemon that serves PATH and takes its time to end. Returns its pid once the mount is there. */
static pid_t start_daemon(const char *path, unsigned ends_after_ms)
{
        int ready[2];
        pid_t pid;
        char c;

        CHECK(pipe(ready) == 0);
        pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
                char *source = mount_source_format("docker.io/library/alpine:edge", DIGEST, "linux/amd64", getpid());
                int fd;

                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                fd = mount_fuse(path, source, "fuse.regfs");
                (void) !write(ready[1], "", 1);
                serve(fd);
                (void) poll(NULL, 0, (int) ends_after_ms);
                _exit(0);
        }
        close(ready[1]);
        if (read(ready[0], &c, 1) != 1)
                _exit(CHILD_SKIPS);
        close(ready[0]);
        return pid;
}

static size_t mounts_below(const struct place *p, struct mount_entry *ret_last)
{
        struct mount_table t;
        size_t n = 0;

        CHECK(mount_table_read(&t, NULL) == 0);
        for (size_t k = 0; k < t.count; k++) {
                if (!str_after(t.items[k].directory, p->path))
                        continue;
                n++;
                if (ret_last) {
                        *ret_last = t.items[k];
                        t.items[k] = (struct mount_entry) { 0 };
                }
        }
        mount_table_clear(&t);
        return n;
}

static void expect_error(const char *path, int code, const char *words)
{
        struct error e = ERROR_INIT;
        int r = mount_remove(path, false, &e);

        if (r != -code || e.kind != ERROR_MOUNT || !strstr(e.message, words)) {
                fprintf(stderr, "%d: '%s', expected '%s'\n", r, e.message, words);
                _exit(1);
        }
}

#define LACKS "mounts of its own, or /dev/fuse"

/* ---- the table ---- */

static void source_tells_all_of_a_mount(void **state _unused_)
{
        _cleanup_free_ char *s = mount_source_format("docker.io/library/alpine:edge", DIGEST, "linux/arm/v7", 42);

        assert_string_equal(s, "docker.io/library/alpine:edge@" DIGEST "#linux/arm/v7#42");
}

static void in_child_reads_table(const struct place *p)
{
        static const char *const names[] = { "plain", "with space", "tab\tnewline\nend", "back\\slash \\040",
                                             "#hash@at" };

        private_mounts();
        CHECK(mounts_below(p, NULL) == 0);
        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                char *source = mount_source_format("oci:dir with @ and #:tag@x", DIGEST, "linux/amd64", 4711);
                struct mount_entry m;
                int fd;

                CHECK(mkdir(directory(p, names[k]), 0700) == 0);
                fd = mount_fuse(directory(p, names[k]), source, "fuse.regfs");
                CHECK(mounts_below(p, &m) == 1);
                CHECK(str_eq(m.directory, directory(p, names[k])));
                CHECK(str_eq(m.reference, "oci:dir with @ and #:tag@x"));
                CHECK(str_eq(m.digest, DIGEST));
                CHECK(str_eq(m.platform, "linux/amd64"));
                CHECK(m.pid == 4711);
                close(fd);
                CHECK(umount2(directory(p, names[k]), MNT_DETACH) == 0);
        }
}

static void mounts_are_read_whatever_their_names(void **state)
{
        run_in_child(in_child_reads_table, *state, LACKS);
}

static void in_child_reads_foreign(const struct place *p)
{
        static const char *const sources[] = { "somebody", "a#b", "x@y#z", "r@" DIGEST "#linux/amd64#not-a-pid" };

        private_mounts();
        CHECK(mkdir(directory(p, "a"), 0700) == 0);
        CHECK(mount("r@" DIGEST "#linux/amd64#1", directory(p, "a"), "tmpfs", 0, NULL) == 0);
        CHECK(mounts_below(p, NULL) == 0);
        CHECK(umount(directory(p, "a")) == 0);
        close(mount_fuse(directory(p, "a"), "r@" DIGEST "#linux/amd64#1", "fuse.other"));
        CHECK(mounts_below(p, NULL) == 0);
        CHECK(umount2(directory(p, "a"), MNT_DETACH) == 0);

        for (size_t k = 0; k < ELEMENTSOF(sources); k++) {
                struct mount_entry m;

                close(mount_fuse(directory(p, "a"), sources[k], "fuse.regfs"));
                CHECK(mounts_below(p, &m) == 1);
                CHECK(m.pid == 0);
                CHECK(str_eq(m.reference, k == 3 ? "r" : sources[k]));
                CHECK(str_eq(m.digest, k == 3 ? DIGEST : ""));
                CHECK(umount2(directory(p, "a"), MNT_DETACH) == 0);
        }
}

static void mounts_of_others_are_left_out_and_renamed_ones_are_not(void **state)
{
        run_in_child(in_child_reads_foreign, *state, LACKS);
}

/* ---- unmounting ---- */

static void in_child_waits_for_daemon(const struct place *p)
{
        int status;
        pid_t pid;

        private_mounts();
        CHECK(mkdir(directory(p, "a"), 0700) == 0);
        pid = start_daemon(directory(p, "a"), 200);
        CHECK(mounts_below(p, NULL) == 1);
        CHECK(mount_remove(directory(p, "a"), false, NULL) == 0);
        CHECK(mounts_below(p, NULL) == 0);
        CHECK(waitpid(pid, &status, WNOHANG) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void removal_waits_until_the_daemon_has_ended(void **state)
{
        run_in_child(in_child_waits_for_daemon, *state, LACKS);
}

static void in_child_removes_dead(const struct place *p)
{
        private_mounts();
        CHECK(mkdir(directory(p, "a"), 0700) == 0);
        close(mount_fuse(directory(p, "a"), "r@" DIGEST "#linux/amd64#1", "fuse.regfs"));
        CHECK(access(directory(p, "a"), F_OK) < 0 && errno == ENOTCONN);
        CHECK(mount_remove(directory(p, "a//"), false, NULL) == 0);
        CHECK(access(directory(p, "a"), F_OK) == 0);
}

static void mount_of_a_dead_daemon_is_removed(void **state)
{
        run_in_child(in_child_removes_dead, *state, LACKS);
}

static void in_child_removes_hanging(const struct place *p)
{
        int fd;

        private_mounts();
        CHECK(mkdir(directory(p, "a"), 0700) == 0);
        /* Nobody answers, and nobody has hung up. */
        fd = mount_fuse(directory(p, "a"), "r@" DIGEST "#linux/amd64#0", "fuse.regfs");
        CHECK(mount_remove(directory(p, "a"), true, NULL) == 0);
        CHECK(mounts_below(p, NULL) == 0);
        close(fd);
}

static void mount_of_a_daemon_that_hangs_is_removed_without_asking_it(void **state)
{
        run_in_child(in_child_removes_hanging, *state, LACKS);
}

static void in_child_finds_by_any_name(const struct place *p)
{
        static const char *const names[] = { "a", "./a", "link", "x/../a/", "x/../link/", "a/." };

        private_mounts();
        CHECK(mkdir(directory(p, "a"), 0700) == 0);
        CHECK(mkdir(directory(p, "x"), 0700) == 0);
        CHECK(symlink("a", directory(p, "link")) == 0);
        CHECK(chdir(p->path) == 0);
        for (size_t k = 0; k < ELEMENTSOF(names); k++) {
                struct error e = ERROR_INIT;
                pid_t pid = start_daemon(directory(p, "a"), 0);

                if (mount_remove(names[k], false, &e) < 0) {
                        fprintf(stderr, "%s: %s\n", names[k], e.message);
                        _exit(1);
                }
                CHECK(waitpid(pid, NULL, 0) == pid);
                CHECK(mounts_below(p, NULL) == 0);
        }
}

static void mount_is_found_by_any_of_its_names(void **state)
{
        run_in_child(in_child_finds_by_any_name, *state, LACKS);
}

static void in_child_removes_the_upper(const struct place *p)
{
        pid_t lower, upper;
        int status;

        private_mounts();
        CHECK(mkdir(directory(p, "a"), 0700) == 0);
        lower = start_daemon(directory(p, "a"), 0);
        upper = start_daemon(directory(p, "a"), 100);
        CHECK(mounts_below(p, NULL) == 2);
        CHECK(mount_remove(directory(p, "a"), false, NULL) == 0);
        CHECK(waitpid(upper, &status, WNOHANG) == upper);
        CHECK(waitpid(lower, &status, WNOHANG) == 0);
        CHECK(mounts_below(p, NULL) == 1);
        CHECK(mount_remove(directory(p, "a"), false, NULL) == 0);
}

static void of_two_mounts_the_upper_one_is_removed(void **state)
{
        run_in_child(in_child_removes_the_upper, *state, LACKS);
}

static void in_child_refuses(const struct place *p)
{
        int busy;

        private_mounts();
        expect_error(directory(p, "nowhere"), ENOENT, "No such file");
        CHECK(mkdir(directory(p, "a"), 0700) == 0);
        expect_error(directory(p, "a"), EINVAL, "no regfs mount there");
        CHECK(mount("tmpfs", directory(p, "a"), "tmpfs", 0, NULL) == 0);
        expect_error(directory(p, "a"), EINVAL, "no regfs mount there");
        CHECK(umount(directory(p, "a")) == 0);

        (void) start_daemon(directory(p, "a"), 0);
        busy = open(directory(p, "a"), O_PATH | O_CLOEXEC);
        CHECK(busy >= 0);
        expect_error(directory(p, "a"), EBUSY, "--lazy");
        CHECK(mounts_below(p, NULL) == 1);
        CHECK(mount_remove(directory(p, "a"), true, NULL) == 0);
        CHECK(mounts_below(p, NULL) == 0);
        close(busy);
}

static void what_is_no_mount_and_what_is_busy_is_told(void **state)
{
        run_in_child(in_child_refuses, *state, LACKS);
}

#define place_test(function) cmocka_unit_test_setup_teardown(function, place_setup, place_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(source_tells_all_of_a_mount),
                place_test(mounts_are_read_whatever_their_names),
                place_test(mounts_of_others_are_left_out_and_renamed_ones_are_not),
                place_test(removal_waits_until_the_daemon_has_ended),
                place_test(mount_of_a_dead_daemon_is_removed),
                place_test(mount_of_a_daemon_that_hangs_is_removed_without_asking_it),
                place_test(mount_is_found_by_any_of_its_names),
                place_test(of_two_mounts_the_upper_one_is_removed),
                place_test(what_is_no_mount_and_what_is_busy_is_told),
        };

        return cmocka_run_group_tests_name("mounts", tests, NULL, NULL);
}
