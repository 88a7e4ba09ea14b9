/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A tar stream, pushed in pieces of any size, as entries with the content offsets of their data. ustar, pax, GNU long
 * names, old GNU sparse, pax GNU.sparse 0.0, 0.1 and 1.0, base-256 numbers, global headers, negative times (POSIX
 * pax(1), GNU tar manual "Basic Tar Format", libarchive tar(5)). File data is passed over, never buffered and never
 * looked at.
 *
 * Where implementations differ:
 *   - A zero block ends the archive, as with GNU tar and libarchive; whatever follows is ignored.
 *   - Only regular files have data; sizes of other types are ignored. A hardlink with a size may have a body (POSIX
 *     allows one, libarchive expects it in pax archives, Go's archive/tar and GNU tar never): it is passed over when
 *     the block behind the header is neither a header nor zeros, so that all that Go reads is read the same way.
 *   - A name that ends in a slash is a directory with type NUL, as in Go, and with type '0' in v7 headers, as in GNU
 *     tar and libarchive.
 *   - Unknown types are regular files. Volume labels ('V') and Solaris ACLs ('A') are passed over; the rest of a file
 *     from another volume ('M') is refused, and so are a sparse entry of star and an unknown GNU.sparse version.
 *   - GNU long names go before pax records, and pax records before header fields, which are then not even parsed. A
 *     record with an empty value takes its key back: the header's field stays, and there is no xattr of that name, as
 *     with umoci and podman. Of two extension headers of a kind for one entry the later counts.
 *   - Global records are defaults for all that follows, save GNU.sparse ones, which are ignored there.
 *   - Names, targets and xattr names are bytes; the entry's xattrs are sorted by name, a name once. */

#include "regfs/base.h"
#include "regfs/error.h"
#include "regfs/itable.h"

struct tar_scanner;

/* ENTRY and everything in it is borrowed for the call. Return 0 or -errno with E; that ends the scan. */
typedef int tar_entry_fn(void *context, const struct layer_entry *entry, struct error *e);

int tar_scanner_new(tar_entry_fn *entry, void *context, struct tar_scanner **ret);
struct tar_scanner *tar_scanner_free(struct tar_scanner *t);
DEFINE_CLEANUP(struct tar_scanner *, tar_scanner_free)

/* The next N bytes of the stream, whose content offset is the count of bytes fed before. Returns 0; -EBADMSG with E
 * that names entry and offset: a wrong checksum, a number out of range (uid and gid have 32 bits, devices 12 and 20,
 * sizes and seconds are those of int64_t), a pax record that is malformed, more than 1 MiB of extension headers and
 * sparse map for one entry, more than 4096 xattrs, global records past 64 KiB, a sparse map past its file, out of order
 * or at odds with the stored size, a link without a target; the callback's value; -ENOMEM. After a failure every call
 * fails with its code. */
int tar_scanner_feed(struct tar_scanner *t, const uint8_t *data, size_t n, struct error *e);

/* Passes over up to MAX bytes of the stream that nobody looks at, file data, without having them: for a stream that
 * can be read anywhere. Returns how many, 0 when the next bytes are needed. */
uint64_t tar_scanner_skip(struct tar_scanner *t, uint64_t max);

/* The stream has ended. An empty stream and one without the two zero blocks are accepted when they end between entries,
 * the padding of the last one missing or not; in the middle of a header or of data, or between an extension header and
 * its entry: -EBADMSG with E. */
int tar_scanner_finish(struct tar_scanner *t, struct error *e);
