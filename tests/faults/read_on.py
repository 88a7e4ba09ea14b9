#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads every file of a directory, again and again, each time anew from its filesystem, and says the name and SHA-256 of each.
Ends with 1 at the first error, which it names. A process of its own: one that hangs can be killed.

usage: read_on.py DIRECTORY [ROUNDS]
"""
import hashlib
import os
import sys


def read(path):
    digest = hashlib.sha256()
    with open(path, 'rb', buffering=0) as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while piece := f.read(128 << 10):
            digest.update(piece)
    return digest.hexdigest()


def main():
    directory, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None
    try:
        names = sorted(os.listdir(directory)) or sys.exit('no files: unmounted before the first look')
        while rounds is None or rounds > 0:
            for name in names:
                print(name, read(os.path.join(directory, name)), flush=True)
            rounds = rounds and rounds - 1
    except OSError as e:
        sys.exit(str(e))


main()
