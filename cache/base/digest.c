/* SPDX-License-Identifier: Apache-2.0 */

#include "regfs/digest.h"

#include <openssl/evp.h>
#include <string.h>

#include "regfs/text.h"

static const struct {
        const char *name;
        size_t size;
} algorithms[] = {
        [DIGEST_SHA256] = { "sha256", 32 },
        [DIGEST_SHA512] = { "sha512", 64 },
};

const char *digest_algorithm_name(enum digest_algorithm a)
{
        return a == DIGEST_SHA256 || a == DIGEST_SHA512 ? algorithms[a].name : "none";
}

size_t digest_size(enum digest_algorithm a)
{
        return a == DIGEST_SHA256 || a == DIGEST_SHA512 ? algorithms[a].size : 0;
}

int digest_parse(const char *s, struct digest *ret, struct error *e)
{
        for (enum digest_algorithm a = DIGEST_SHA256; s && a <= DIGEST_SHA512; a++) {
                const char *hex = str_after(s, algorithms[a].name);
                struct digest d = { .algorithm = a };

                if (!hex || *hex != ':')
                        continue;
                if (hex_decode(hex + 1, algorithms[a].size, d.bytes) < 0)
                        break;
                *ret = d;
                return 0;
        }
        if (!s)
                return error_set(e, ERROR_BAD_DATA, EINVAL, "a digest is missing");
        return error_set(e, ERROR_BAD_DATA, EINVAL, "%.100s: not a digest (sha256: and 64 lower-case hex digits)", s);
}

char *digest_hex(const struct digest *d, char *out)
{
        hex_encode(d->bytes, digest_size(d->algorithm), out);
        return out;
}

char *digest_format(const struct digest *d, char *out)
{
        const char *name = digest_algorithm_name(d->algorithm);
        size_t n = strlen(name);

        memcpy(out, name, n);
        out[n] = ':';
        digest_hex(d, out + n + 1);
        return out;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
        return a->algorithm == b->algorithm && memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

struct hasher {
        EVP_MD_CTX *context;
        enum digest_algorithm algorithm;
};

struct hasher *hasher_free(struct hasher *h)
{
        if (!h)
                return NULL;
        EVP_MD_CTX_free(h->context);
        free(h);
        return NULL;
}

struct hasher *hasher_new(enum digest_algorithm algorithm)
{
        struct hasher *h;

        if (digest_size(algorithm) == 0)
                return NULL;
        h = calloc(1, sizeof(*h));
        if (!h)
                return NULL;
        h->algorithm = algorithm;
        h->context = EVP_MD_CTX_new();
        if (!h->context || hasher_reset(h) < 0)
                return hasher_free(h);
        return h;
}

int hasher_reset(struct hasher *h)
{
        const EVP_MD *md = h->algorithm == DIGEST_SHA512 ? EVP_sha512() : EVP_sha256();

        return EVP_DigestInit_ex(h->context, md, NULL) == 1 ? 0 : -ENOMEM;
}

int hasher_update(struct hasher *h, const void *data, size_t n)
{
        return EVP_DigestUpdate(h->context, data, n) == 1 ? 0 : -EIO;
}

int hasher_finish(struct hasher *h, struct digest *ret)
{
        struct digest d = { .algorithm = h->algorithm };
        unsigned n = 0;

        if (EVP_DigestFinal_ex(h->context, d.bytes, &n) != 1 || n != digest_size(h->algorithm))
                return -EIO;
        *ret = d;
        return 0;
}

int digest_of(enum digest_algorithm algorithm, const void *data, size_t n, struct digest *ret)
{
        _cleanup_(hasher_free_ptr) struct hasher *h = NULL;
        int r;

        if (digest_size(algorithm) == 0)
                return -EINVAL;
        h = hasher_new(algorithm);
        if (!h)
                return -ENOMEM;
        r = hasher_update(h, data, n);
        return r < 0 ? r : hasher_finish(h, ret);
}

int digest_verify(const struct digest *expected, const void *data, size_t n, const char *what, struct error *e)
{
        char is[DIGEST_STRING_MAX], wanted[DIGEST_STRING_MAX];
        struct digest actual;
        int r;

        r = digest_of(expected->algorithm, data, n, &actual);
        if (r < 0)
                return error_errno(e, -r, "%s: hashing", what);
        if (digest_equal(&actual, expected))
                return 0;
        return error_set(e, ERROR_BAD_DATA, EBADMSG, "%s: digest is %s, expected %s", what, digest_format(&actual, is),
                         digest_format(expected, wanted));
}
