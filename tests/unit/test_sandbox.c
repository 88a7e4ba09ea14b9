/* SPDX-License-Identifier: Apache-2.0 */

/* Files: which are refused, and that all goes on with the others. */

#include "sandbox_fixture.h"

#include <sys/mman.h>

#include "regfs/io.h"

/* ---- files ---- */

static int opens_passwd(void)
{
        return open_result("/etc/passwd", O_RDONLY);
}

static int opens_outside(void)
{
        return open_result(in("outside/file"), O_RDONLY);
}

static int opens_outside_from_the_store(void)
{
        return open_result(in("store/../outside/file"), O_RDONLY);
}

static int follows_a_link_outside(void)
{
        return open_result(in("store/link"), O_RDONLY);
}

static int lists_outside(void)
{
        return open_result(in("outside"), O_RDONLY | O_DIRECTORY);
}

static int makes_a_file_outside(void)
{
        return open_result(in("outside/new"), O_WRONLY | O_CREAT);
}

static int opens_its_own_memory(void)
{
        return open_result("/proc/self/mem", O_RDWR);
}

static int changes_configuration(void)
{
        return open_result(in("configuration/file"), O_WRONLY);
}

static int removes_configuration(void)
{
        return outcome(unlink(in("configuration/file")));
}

static int moves_a_file_out(void)
{
        return outcome(rename(in("store/file"), in("outside/moved")));
}

static int makes_a_device(void)
{
        return outcome(mknod(in("store/device"), S_IFCHR | 0600, 0));
}

static void files_outside_are_refused(_unused_ void **state)
{
        if (!landlock)
                skip();
        EXPECT(opens_passwd, EACCES);
        EXPECT(opens_outside, EACCES);
        EXPECT(opens_outside_from_the_store, EACCES);
        EXPECT(follows_a_link_outside, EACCES);
        EXPECT(lists_outside, EACCES);
        EXPECT(makes_a_file_outside, EACCES);
        EXPECT(opens_its_own_memory, EACCES);
        EXPECT(changes_configuration, EACCES);
        EXPECT(removes_configuration, EACCES);
        EXPECT(moves_a_file_out, landlock >= 2 ? EACCES : EXDEV);
        EXPECT(makes_a_device, EPERM); /* the filter comes first */
}

static int reads_configuration(void)
{
        int r = open_result(in("configuration/file"), O_RDONLY);

        return r == 0 ? open_result(in("single"), O_RDONLY) : r;
}

static int lists_configuration(void)
{
        return open_result(in("configuration"), O_RDONLY | O_DIRECTORY);
}

static int looks_a_name_up_outside(void)
{
        struct stat st;

        return outcome(stat(in("outside/file"), &st));
}

/* All that the store does to its files. */
static int uses_the_store(void)
{
        _cleanup_close_ int dir = open(in("store"), O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        struct stat st;
        void *map;

        if (dir < 0 || mkdirat(dir, "tmp/draft", 0700) < 0)
                return errno;
        fd = openat(dir, "tmp/draft/content", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || pwrite(fd, "content", 7, 4096) != 7 || ftruncate(fd, 64 << 10) < 0)
                return errno;
        if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) < 0 && errno != EOPNOTSUPP)
                return errno;
        if (fcntl(fd, F_OFD_SETLK, &lock) < 0 || fsync(fd) < 0 || fstat(fd, &st) < 0)
                return errno;
        map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED || msync(map, 4096, MS_SYNC) < 0 || munmap(map, 4096) < 0)
                return errno;
        if (renameat(dir, "tmp/draft", dir, "layer") < 0 || unlinkat(dir, "layer/content", 0) < 0 ||
            unlinkat(dir, "layer", AT_REMOVEDIR) < 0)
                return errno;
        return open_result(in("store/file"), O_RDWR | O_TRUNC);
}

static int spools(void)
{
        _cleanup_close_ int fd = -1;
        struct error e = ERROR_INIT;

        if (setenv("TMPDIR", in("spool"), 1) < 0)
                return WRONG;
        fd = temporary_file(&e);
        if (fd < 0)
                return e.code;
        return outcome(pwrite(fd, "spooled", 7, 0));
}

static int makes_a_name_in_the_spool(void)
{
        return open_result(in("spool/new"), O_RDWR | O_CREAT);
}

static void what_rules_allow_works(_unused_ void **state)
{
        _cleanup_close_ int nameless = open(in("spool"), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

        EXPECT(reads_configuration, 0);
        EXPECT(lists_configuration, 0);
        EXPECT(looks_a_name_up_outside, 0);
        EXPECT(uses_the_store, 0);
        EXPECT(spools, 0);
        if (landlock && nameless >= 0)
                EXPECT(makes_a_name_in_the_spool, EACCES);
}

static int follows_a_link_of_the_configuration(void)
{
        return open_result(in("configuration/link"), O_RDONLY);
}

/* fork() here, since status_of has no such rule. */
static void links_lead_outside_only_where_that_was_allowed(_unused_ void **state)
{
        int status;
        pid_t pid;

        if (!landlock)
                skip();
        EXPECT(follows_a_link_of_the_configuration, EACCES);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct sandbox *s;

                if (sandbox_new(&s, NULL) < 0 || sandbox_allow_linked(s, in("configuration"), NULL) < 0 ||
                    sandbox_enter(s, NULL) < 0 || lists_outside() != EACCES)
                        _exit(WRONG);
                _exit(follows_a_link_of_the_configuration());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static void a_sandbox_is_that_of_one_thread_and_what_it_starts(_unused_ void **state)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                pthread_t thread;
                void *failed;

                if (pthread_create(&thread, NULL, enter_and_start, NULL) != 0 || pthread_join(thread, &failed) != 0 ||
                    failed)
                        _exit(WRONG);
                _exit(opens_outside());
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(files_outside_are_refused),
                TEST(what_rules_allow_works),
                TEST(links_lead_outside_only_where_that_was_allowed),
                TEST(a_sandbox_is_that_of_one_thread_and_what_it_starts),
        };

        return RUN_SANDBOX_TESTS(tests);
}
