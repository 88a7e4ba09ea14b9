# SPDX-License-Identifier: Apache-2.0
"""libregfs as a program outside meets it: installed, found by pkg-config, shared and static."""
import os
import pathlib
import subprocess
import unittest

import testbed

TOP = pathlib.Path(__file__).resolve().parents[2]
DEMO = TOP / 'tests/fixtures/demo'

PROGRAM = r'''
#include <regfs.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
        struct regfs_options options = REGFS_OPTIONS_INIT;
        struct regfs_dirent entry;
        struct regfs_image *image;
        struct regfs_error error;
        const char *comment;
        char text[4096];
        struct stat st;
        size_t length;
        uint64_t ino;
        ssize_t n;

        (void) argc;
        options.cache_dir = argv[2];
        if (regfs_open(argv[1], &options, &image, &error) < 0) {
                fprintf(stderr, "%s\n", error.message);
                return error.kind;
        }
        printf("%s %s\n", regfs_reference(image), regfs_platform(image));
        for (uint32_t k = 0; regfs_list(image, REGFS_ROOT, k, &entry, &error) == 1; k++)
                printf("%.*s ", (int) entry.name_length, entry.name);
        puts("");
        if (regfs_lookup(image, "/etc/os-release", REGFS_FOLLOW, &ino, &error) < 0 || regfs_stat(image, ino, &st, &error) < 0)
                return error.kind;
        n = regfs_read(image, ino, text, sizeof(text), 0, &error);
        printf("%d %.*s", n == st.st_size, (int) n, text);
        if (regfs_lookup(image, "etc/owner", 0, &ino, &error) < 0 ||
            regfs_getxattr(image, ino, "user.comment", (const void **) &comment, &length, &error) < 0)
                return error.kind;
        printf("%.*s\n", (int) length, comment);
        printf("%d\n", regfs_lookup(image, "/etc/motd", 0, &ino, &error));
        printf("%s\n", error.message);
        regfs_close(image);
        return 0;
}
'''

EXPECTED = '''oci:%s:demo linux/amd64
bin dev etc usr var 
1 NAME="regfs demo"
ID=demo
VERSION_ID=2
PRETTY_NAME="regfs demo 2"
from the top layer
-2
oci:%s:demo: /etc/motd: No such file or directory
''' % (DEMO, DEMO)


class LibraryTest(testbed.TestCase):
    @classmethod
    def set_up_shared(cls):
        build = pathlib.Path(testbed.regfs_binary()).parent
        cls.work = cls.shared.dir
        # Elsewhere than configured: the prefix in the pkg-config file is moved along.
        subprocess.run(['meson', 'install', '-C', str(build), '--no-rebuild', '--destdir', str(cls.work / 'root')], check=True,
                       stdout=subprocess.DEVNULL)
        found = list((cls.work / 'root').rglob('libregfs.pc'))
        assert len(found) == 1, found
        cls.prefix = next((cls.work / 'root').rglob('include/regfs.h')).parents[1]
        cls.environ = dict(os.environ, PKG_CONFIG_PATH=str(found[0].parent))
        cls.libraries = next((cls.work / 'root').rglob('libregfs.so')).parent
        (cls.work / 'program.c').write_text(PROGRAM)

    def flags(self, *more):
        output = subprocess.run(['pkg-config', '--define-variable=prefix=%s' % self.prefix, '--cflags', '--libs', *more, 'libregfs'],
                                env=self.environ, stdout=subprocess.PIPE, check=True).stdout.decode()
        return output.split()

    def check(self, name, compiler_flags):
        program, store = self.work / name, self.work / (name + '.store')
        subprocess.run(['cc', '-Wall', '-Werror', '-o', program, self.work / 'program.c', *compiler_flags], check=True)
        environ = dict(os.environ, LD_LIBRARY_PATH=str(self.libraries))
        done = subprocess.run([program, 'oci:%s:demo' % DEMO, store], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(done.stderr.decode(), '')
        self.assertEqual(done.stdout.decode(), EXPECTED)
        self.assertEqual(done.returncode, 0)

    def test_shared(self):
        self.check('shared', self.flags())

    def test_static(self):
        # Static itself, on the system's shared libraries: Debian has not everything that `pkg-config --static libcurl` names.
        flags = ['-l:libregfs.a' if f == '-lregfs' else f for f in self.flags()]
        private = subprocess.run(['pkg-config', '--print-requires-private', 'libregfs'], env=self.environ,
                                 stdout=subprocess.PIPE, check=True).stdout.decode().splitlines()
        needs = subprocess.run(['pkg-config', '--libs', *(line.split()[0] for line in private)], stdout=subprocess.PIPE,
                               check=True).stdout.decode().split()
        self.check('static', flags + needs + ['-pthread'])

    def test_shared_library_shows_the_public_names_only(self):
        names = subprocess.run(['nm', '-D', '--defined-only', self.libraries / 'libregfs.so'], stdout=subprocess.PIPE,
                               check=True).stdout.decode().split()[2::3]
        self.assertIn('regfs_open', names)
        self.assertEqual([n for n in names if not n.startswith('regfs_')], [])

    def test_missing_image(self):
        program = self.work / 'missing'
        subprocess.run(['cc', '-o', program, self.work / 'program.c', *self.flags()], check=True)
        done = subprocess.run([program, 'oci:%s:none' % DEMO, self.work / 'missing.store'], stderr=subprocess.PIPE,
                              env=dict(os.environ, LD_LIBRARY_PATH=str(self.libraries)))
        self.assertEqual(done.returncode, 3)
        self.assertIn('its tags: demo', done.stderr.decode())


if __name__ == '__main__':
    unittest.main()
