# SPDX-License-Identifier: Apache-2.0
"""The bed that every integration test lies in: a directory of its own, regfs run with configuration and store below it, mounts
that go away whatever happens, and no process left behind.

A test case derives from TestCase. self.bed belongs to one test; cls.shared, made by setUpClass, to all tests of the class.
The regfs under test is named by $REGFS. Set $REGFS_TEST_KEEP to keep the directories, logs included, for a look.
"""
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # regfs leaves it ignored where it was when it was started

TOP = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = TOP / 'tests/fixtures'
MARK = 'REGFS_TEST_BED'  # in the environment of every process that a bed starts: how it finds them again

# Exit codes of regfs.
USAGE, NOT_FOUND, DENIED, UNREACHABLE, BAD_DATA, CANNOT_MOUNT = 2, 3, 4, 5, 6, 7

Result = collections.namedtuple('Result', 'code out err seconds')


def regfs_binary():
    path = os.environ.get('REGFS', str(TOP / 'build/regfs'))
    if not os.access(path, os.X_OK):
        raise RuntimeError('no regfs at %s: build it, or name it in $REGFS' % path)
    return path


def wait_until(condition, what, seconds=20):
    """Waits for the condition, and returns what it returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError('waited %g s in vain: %s' % (seconds, what))
        time.sleep(0.01)


def run(*argv, **more):
    """Runs a tool that has to succeed; returns its output."""
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=more.pop('timeout', 300), **more)
    if done.returncode != 0:
        raise RuntimeError('%s: exit code %d\n%s' % (' '.join(map(str, argv)), done.returncode,
                                                     done.stdout.decode(errors='replace')))
    return done.stdout.decode(errors='replace')


def _unescape(field):
    return re.sub(r'\\([0-7]{3})', lambda m: chr(int(m.group(1), 8)), field)


def mounts_below(directory):
    """(directory, type, source) of everything mounted below a directory, the latest first."""
    found = []
    with open('/proc/self/mountinfo') as f:
        for line in f:
            left, _, right = line.partition(' - ')
            where, kind = _unescape(left.split()[4]), right.split()
            if where.startswith(str(directory) + '/'):
                found.append((where, kind[0], _unescape(kind[1])))
    return found[::-1]


def processes_of(directory):
    """Ids of the living processes that the bed at that directory started, and of their children."""
    mark, found = ('%s=%s' % (MARK, directory)).encode(), []
    for entry in os.listdir('/proc'):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            with open('/proc/%s/environ' % entry, 'rb') as f:
                environ = f.read().split(b'\0')
            with open('/proc/%s/stat' % entry) as f:
                state = f.read().rpartition(')')[2].split()[0]
            if mark in environ and state != 'Z':
                found.append(int(entry))
    return found


class Store:
    """A look at regfs's store from outside."""

    def __init__(self, path):
        self.path = pathlib.Path(path)

    def drafts(self):
        return sorted(p.name for p in (self.path / 'tmp').glob('*'))

    def layers(self):
        return sorted(self.path.glob('layers/sha256/*/*'))

    def images(self):
        return sorted(self.path.glob('images/*'))

    def forget_content(self):
        """Clears every word of every map, as eviction does: each chunk has to be fetched again."""
        maps = list(self.path.glob('layers/sha256/*/*/map'))
        for path in maps:
            with open(path, 'r+b') as f:
                magic, _version, header = struct.unpack('<8sII', f.read(16))
                if magic != b'REGFSMAP':
                    raise AssertionError('%s: magic %r' % (path, magic))
                f.seek(header)
                f.write(bytes(path.stat().st_size - header))
        if not maps:
            raise AssertionError('%s: no layer has a map' % self.path)


class Mount:
    def __init__(self, bed, directory, log, entry):
        self.bed = bed
        self.path = pathlib.Path(directory)
        self.log_path = log
        self.pid = entry['pid']
        self.digest = entry['digest']
        self.entry = entry

    def log(self):
        return self.log_path.read_text(errors='replace')

    def read(self, name):
        return (self.path / name).read_bytes()

    def umount(self):
        """regfs umount, which returns when the daemon has ended."""
        result = self.bed.regfs('umount', str(self.path))
        if result.code != 0 or self.bed.is_mounted(self.path) or alive(self.pid):
            raise AssertionError('umount %s: %r, process %d alive: %s' % (self.path, result, self.pid, alive(self.pid)))


def alive(pid):
    with contextlib.suppress(OSError):
        with open('/proc/%d/stat' % pid) as f:
            return f.read().rpartition(')')[2].split()[0] != 'Z'
    return False


def forget_pages(path):
    """Lets the kernel forget a file's pages, so that the next read of it is a request to its daemon."""
    with open(path, 'rb') as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Bed:
    def __init__(self, name):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix='regfs-%s.' % re.sub(r'[^\w.-]', '_', name)[-60:]))
        self.dir.chmod(0o755)
        for sub in ('home', 'run', 'tmp'):
            (self.dir / sub).mkdir()
        (self.dir / 'run').chmod(0o700)
        self.stack = contextlib.ExitStack()
        self.registries_conf = self.dir / 'registries.conf'
        self.registries_conf.write_text('')
        self.home = self.dir / 'home'
        self.store = Store(self.dir / 'store')
        self.started = []
        self.number = 0
        self.environ = {
            MARK: str(self.dir),
            'PATH': os.environ['PATH'],
            'LANG': 'C.UTF-8',
            'HOME': str(self.home),
            'TMPDIR': str(self.dir / 'tmp'),
            'XDG_RUNTIME_DIR': str(self.dir / 'run'),
            'REGFS_CACHE_DIR': str(self.store.path),
            'CONTAINERS_REGISTRIES_CONF': str(self.registries_conf),
        }
        self.environ.update((k, v) for k, v in os.environ.items() if k.endswith('SAN_OPTIONS'))

    # ---- files ----

    def fresh(self, name):
        """A path below the bed that nobody had before."""
        self.number += 1
        return self.dir / ('%s-%d' % (name, self.number))

    def mkdir(self, name='mnt'):
        path = self.fresh(name)
        path.mkdir()
        return path

    def write(self, name, data):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def write_json(self, name, value):
        return self.write(name, json.dumps(value))

    # ---- processes ----

    def start(self, *argv, **more):
        """A process of this bed, ended with it."""
        environ = dict(self.environ, **more.pop('env', {}))
        process = subprocess.Popen([str(a) for a in argv], env=environ, stdin=subprocess.DEVNULL, start_new_session=True, **more)
        self.started.append(process)
        return process

    def regfs(self, *args, env=None, prefix=(), timeout=90, cwd=None):
        """Runs regfs to its end. A daemon that kept the pipes open would make this run into the timeout: that is meant."""
        begin = time.monotonic()
        environ = dict(self.environ, **(env or {}))
        done = subprocess.run([*prefix, regfs_binary(), *map(str, args)], env=environ, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, cwd=cwd)
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode(), time.monotonic() - begin)

    def processes(self):
        return processes_of(self.dir)

    # ---- mounts ----

    def is_mounted(self, directory):
        return any(where == str(directory) for where, _, _ in mounts_below(self.dir))

    def mount_table(self):
        result = self.regfs('mounts', '--json')
        if result.code != 0:
            raise AssertionError('regfs mounts --json: %r' % (result,))
        return json.loads(result.out)

    def find_mount(self, directory):
        entries = [m for m in self.mount_table() if m['directory'] == str(directory)]
        if len(entries) != 1:
            raise AssertionError('%d mounts at %s' % (len(entries), directory))
        return entries[0]

    def mount(self, reference, *options, directory=None, **more):
        """Mounts an image, which has to work."""
        directory = directory or self.mkdir()
        log = self.fresh('log')
        result = self.regfs('mount', '--log-level=debug', '--log-file=%s' % log, *options, reference, directory, **more)
        if result.code != 0:
            raise AssertionError('regfs mount %s: exit code %d: %s%s' % (reference, result.code, result.err, _tail(log)))
        if result.out or result.err:
            raise AssertionError('regfs mount %s: says %r' % (reference, result))
        return Mount(self, directory, log, self.find_mount(directory))

    def mount_fails(self, code, reference, *options, directory=None, words=(), keeps_layers=False, **more):
        """Mounts what can't be mounted: exit code, one sentence that holds every word of WORDS (names of objects, causes), and
        nothing left behind: no mount, no process, no draft and, unless KEEPS_LAYERS, no layer in the store."""
        directory = directory or self.mkdir()
        layers, log = self.store.layers(), self.fresh('log')
        mounted = mounts_below(self.dir)
        result = self.regfs('mount', '--log-level=debug', '--log-file=%s' % log, *options, reference, directory, **more)
        problems = []
        if result.code != code:
            problems.append('exit code %d instead of %d' % (result.code, code))
        if not re.fullmatch(r'regfs: [^\n]+\n', result.err) or result.out:
            problems.append('not one sentence on standard error')
        problems += ['no word of %r' % w for w in words if w not in result.err]
        if mounts_below(self.dir) != mounted:
            problems.append('something is mounted')
        if not keeps_layers and self.store.layers() != layers:
            problems.append('a layer was published: %s' % self.store.layers())
        problems += ['draft %s in the store' % d for d in self.store.drafts()]
        if problems:
            raise AssertionError('regfs mount %s: %s\n%r\n%s' % (reference, '; '.join(problems), result, _tail(log)))
        return result

    def close(self):
        """Ends everything; complains where a daemon did not end by itself."""
        complaints = []
        for where, _, _ in mounts_below(self.dir):
            subprocess.run(['umount', '-l', where], check=False)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not self.daemons(), 'daemons end', 10)
        for pid in self.daemons():
            complaints.append('process %d did not end after its unmount' % pid)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.stack.close()
        for process in reversed(self.started):
            end_process(process)
        left = mounts_below(self.dir)
        if left:
            complaints.append('still mounted: %s' % left)
        elif 'REGFS_TEST_KEEP' not in os.environ:
            shutil.rmtree(self.dir)
        if complaints:
            raise AssertionError('; '.join(complaints))

    def daemons(self):
        """Processes besides those that start() began itself."""
        return set(self.processes()) - {p.pid for p in self.started}


def end_process(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()


def _tail(log, size=6000):
    with contextlib.suppress(OSError):
        return '\nits log ends:\n' + log.read_text(errors='replace')[-size:]
    return ''


class TestCase(unittest.TestCase):
    """One bed for each test, and one for the class. A class that shares a registry makes it in set_up_shared."""
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.shared = Bed(cls.__name__)
        cls.addClassCleanup(cls.shared.close)
        cls.set_up_shared()

    @classmethod
    def set_up_shared(cls):
        pass

    def setUp(self):
        self.bed = Bed(self.id())
        self.addCleanup(self.bed.close)
