# SPDX-License-Identifier: Apache-2.0
"""What an image must look like, as `umoci unpack` sees it, and the comparison of a mounted tree with that.

umoci stamps the present on a directory that a layer changes without naming it, and on the root. Those times are compared with
what the layers' tars say: the last one that names the directory decides.
"""
import errno
import hashlib
import io
import os
import stat
import tarfile
import time

from testbed import run


class Oracle:
    def __init__(self, layout, tag, directory, tars=()):
        """Unpacks LAYOUT:TAG below DIRECTORY. TARS are the layers' tars, lowest first."""
        self.begin_ns = time.time_ns() - 10**9
        run('umoci', 'unpack', '--image', '%s:%s' % (layout, tag), directory)
        self.root = os.path.join(directory, 'rootfs')
        self.tree = read_tree(self.root)
        self.named_times = {}
        for data in tars:
            with tarfile.open(fileobj=io.BytesIO(data)) as t:
                for info in t:
                    if info.isdir():
                        self.named_times[os.path.normpath(info.name.lstrip('/') or '.')] = _mtime_ns(info)

    def differences(self, mounted):
        """Lines that say where the tree at MOUNTED is not the image; none when all is well."""
        found = read_tree(mounted)
        lines = ['%s is missing' % _show(p) for p in sorted(set(self.tree) - set(found))]
        lines += ['%s should not be there' % _show(p) for p in sorted(set(found) - set(self.tree))]
        for path in sorted(set(self.tree) & set(found)):
            wanted, got = dict(self.tree[path]), found[path]
            if wanted['type'] == 'directory' and wanted['mtime'] >= self.begin_ns:
                wanted['mtime'] = self.named_times.get(os.fsdecode(path), got['mtime'])
                if got['mtime'] >= self.begin_ns:
                    lines.append('%s: mtime is now' % _show(path))
            lines += ['%s: %s is %r, not %r' % (_show(path), key, got.get(key), wanted.get(key))
                      for key in sorted(set(wanted) | set(got)) if wanted.get(key) != got.get(key)]
        return lines


def _mtime_ns(info):
    text = info.pax_headers.get('mtime')
    if text is None:
        return int(info.mtime) * 10**9
    whole, _, fraction = text.partition('.')
    return int(whole) * 10**9 + int((fraction + '0' * 9)[:9] or 0)


def _show(path):
    return repr(os.fsdecode(path))


TYPES = {stat.S_IFDIR: 'directory', stat.S_IFREG: 'file', stat.S_IFLNK: 'symlink', stat.S_IFCHR: 'character device',
         stat.S_IFBLK: 'block device', stat.S_IFIFO: 'fifo', stat.S_IFSOCK: 'socket'}


def read_tree(root):
    """Everything that stat, readlink, listxattr and read tell about a tree: {path below root: {what: value}}, in bytes."""
    root = os.fsencode(root)
    tree, links = {}, {}
    device = os.lstat(root).st_dev

    def visit(path, name, listed):
        st = os.lstat(path)
        item = {'type': TYPES[stat.S_IFMT(st.st_mode)], 'mode': oct(stat.S_IMODE(st.st_mode)), 'uid': st.st_uid, 'gid': st.st_gid,
                'mtime': st.st_mtime_ns, 'nlink': st.st_nlink}
        if st.st_dev != device:
            item['device'] = 'another one than the root'
        if listed not in (None, item['type']):
            item['type in the listing'] = listed
        if item['type'] in ('character device', 'block device'):
            item['rdev'] = (os.major(st.st_rdev), os.minor(st.st_rdev))
        if item['type'] == 'symlink':
            item['target'] = os.readlink(path)
        if item['type'] in ('file', 'symlink'):
            item['size'] = st.st_size
        if item['type'] == 'file':
            item['sha256'] = _sha256(path)
        item['xattrs'] = {x: os.getxattr(path, x, follow_symlinks=False) for x in _list_xattrs(path)}
        if item['type'] != 'directory':
            links.setdefault(st.st_ino, []).append(name)
        tree[name] = item
        if item['type'] == 'directory':
            with os.scandir(path) as entries:
                listing = [(e.name, _listed_type(e)) for e in entries]
            for child, kind in sorted(listing):
                visit(os.path.join(path, child), child if name == b'.' else os.path.join(name, child), kind)

    visit(root, b'.', None)
    for names in links.values():
        if len(names) > 1:
            for name in names:
                tree[name]['links'] = sorted(names)
    return tree


def _list_xattrs(path):
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError as e:
        # A tree without any xattr may say that it knows none.
        if e.errno != errno.ENOTSUP:
            raise
        return []


def _listed_type(entry):
    """The type as the directory's listing tells it, without a stat, as far as Python shows it."""
    if entry.is_symlink():
        return 'symlink'
    if entry.is_dir(follow_symlinks=False):
        return 'directory'
    return 'file' if entry.is_file(follow_symlinks=False) else None


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as f:
        while True:
            piece = f.read(1 << 20)
            if not piece:
                return digest.hexdigest()
            digest.update(piece)
