/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Digests as image-spec descriptor.md writes them: "sha256:" and 64 lower-case hex digits, "sha512:" and 128.
 * Nothing else is accepted, so a digest that was parsed may stand in a path or a URL. */

#include "regfs/base.h"
#include "regfs/error.h"

enum digest_algorithm {
        DIGEST_NONE = 0,
        DIGEST_SHA256 = 1,
        DIGEST_SHA512 = 2,
};

#define SHA256_SIZE 32
#define DIGEST_MAX_SIZE 64
#define DIGEST_STRING_MAX (sizeof("sha512:") + 2 * DIGEST_MAX_SIZE)

struct digest {
        enum digest_algorithm algorithm;
        uint8_t bytes[DIGEST_MAX_SIZE]; /* unused bytes are zero */
};

/* Returns 0, or -EINVAL with E naming the text (cut to 100 bytes, controls escaped). NULL is no digest either. */
int digest_parse(const char *s, struct digest *ret, struct error *e);

/* "sha256:<hex>" into OUT, at least DIGEST_STRING_MAX bytes. Returns OUT. */
char *digest_format(const struct digest *d, char *out);

/* "sha256" and the hex alone. */
const char *digest_algorithm_name(enum digest_algorithm a);
size_t digest_size(enum digest_algorithm a);
char *digest_hex(const struct digest *d, char *out);

bool digest_equal(const struct digest *a, const struct digest *b);

/* A running hash. NULL when out of memory, and for an algorithm that is none. */
struct hasher;
struct hasher *hasher_new(enum digest_algorithm algorithm);
struct hasher *hasher_free(struct hasher *h);
DEFINE_CLEANUP(struct hasher *, hasher_free)

/* Starts over. */
int hasher_reset(struct hasher *h);
int hasher_update(struct hasher *h, const void *data, size_t n);

/* Ends the hash; start over with hasher_reset. */
int hasher_finish(struct hasher *h, struct digest *ret);

/* One call for bytes in memory. -EINVAL for an algorithm that is none. */
int digest_of(enum digest_algorithm algorithm, const void *data, size_t n, struct digest *ret);

/* 0 when DATA has digest EXPECTED, else -EBADMSG with E: "WHAT: digest is …, expected …". */
int digest_verify(const struct digest *expected, const void *data, size_t n, const char *what, struct error *e);
