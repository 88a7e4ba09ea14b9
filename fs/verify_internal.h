/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the files of image_verify share. */

#include "image_internal.h"
#include "regfs/verify.h"
#include "toc/compare.h"

/* How far one layer is: blob bytes that are received, indexed, compared. */
struct layer_progress {
        atomic_uint_fast64_t received, indexed, compared;
};

/* One layer under examination. */
struct layer_check {
        struct verification *all;
        const struct image_layer *layer;
        struct layer_progress *progress;
        uint64_t problems;
        uint64_t reported;

        char name[DIGEST_STRING_MAX + 8]; /* "layer sha256:…" */
        struct blob *file;                /* all of the blob, here */
        int fd;                           /* of FILE, which owns it */
        struct toc *truth;                /* of its tar */
        struct content *content;          /* of the tar, where FETCHER has put it or finds it */
        struct fetcher *fetcher;
        struct row_pair *pairs; /* rows of the TOC that the image is read by, and of TRUTH */
};

/* One problem more. The line is told as "layer sha256:…: <format>", unless the layer has had its share. */
void verify_problem(struct layer_check *c, const char *format, ...) _printf_(2, 3);

/* -ECANCELED with E once somebody wants it to end. */
int verify_check_cancel(const struct layer_check *c, struct error *e);

/* Counts a chunk of which BLOB_END bytes of the blob are behind. */
void verify_passed(struct layer_check *c, uint64_t blob_end);

/* ---- the chunks of a table, in order ---- */

struct chunk_reader_options {
        int fd; /* of the whole blob */
        const struct chunk_table *table;
        /* A chunk that is what its digest says; DATA NULL: zeros. Non-zero ends the reading. */
        int (*good)(void *context, const struct chunk *c, const uint8_t *data, struct error *e);
        /* One that is not, or that cannot be decoded. */
        int (*bad)(void *context, const struct chunk *c, const struct error *why, struct error *e);
        void *context;
};

/* Decodes every chunk of the table, each range once. 0, what a function returned, or -errno with E. */
int verify_chunks(const struct chunk_reader_options *options, struct error *e);

/* ---- bytes against bytes ---- */

/* Every chunk of the layer's TOC against what the tar has for its files. C has all that it needs but problems. */
int verify_content(struct layer_check *c, struct error *e);
