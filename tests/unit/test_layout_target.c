/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "layout_fixture.h"
#include "regfs/manifest.h"
#include "regfs/push.h"
#include "regfs/thread.h"

#define ARTIFACT_TYPE "application/vnd.example"
#define OCI_MANIFEST OCI "manifest.v1+json"

/* A place for a layout, in the test's directory, that is not there. */
static const char *place(const struct layout *l)
{
        return layout_file(l, "made/by/us");
}

static struct target *open_target(const char *directory)
{
        struct error e = ERROR_INIT;
        struct target *t = NULL;

        if (layout_target_new(directory, &t, &e) < 0)
                fail_msg("%s", e.message);
        return t;
}

static struct source *open_source(const char *directory, const char *tag)
{
        struct error e = ERROR_INIT;
        struct source *s = NULL;

        if (layout_source_new(directory, tag, &s, &e) < 0)
                fail_msg("%s", e.message);
        return s;
}

static struct descriptor push_blob(struct target *t, const char *text)
{
        struct descriptor d = { .size = strlen(text), .media_type = (char *) "application/x" };
        struct error e = ERROR_INIT;

        assert_int_equal(digest_of(DIGEST_SHA256, text, strlen(text), &d.digest), 0);
        if (target_blob(t, &d.digest, text, strlen(text), DEADLINE_NEVER, &e) < 0)
                fail_msg("%s", e.message);
        return d;
}

static struct descriptor push_manifest(struct target *t, const char *tag, const char *text)
{
        struct descriptor d = { .size = strlen(text), .media_type = (char *) OCI_MANIFEST };
        struct error e = ERROR_INIT;

        assert_int_equal(digest_of(DIGEST_SHA256, text, strlen(text), &d.digest), 0);
        if (target_manifest(t, tag, OCI_MANIFEST, text, strlen(text), DEADLINE_NEVER, &e) < 0)
                fail_msg("%s", e.message);
        return d;
}

static void expect_tag(const char *directory, const char *tag, const struct descriptor *d)
{
        _cleanup_(source_free_ptr) struct source *s = open_source(directory, tag);
        _cleanup_document_ struct document document = { 0 };
        struct error e = ERROR_INIT;

        if (source_manifest(s, NULL, DEADLINE_NEVER, &document, &e) < 0)
                fail_msg("%s", e.message);
        assert_true(digest_equal(&document.digest, &d->digest));
}

static void expect_mode(const char *directory, const char *name, mode_t mode)
{
        char path[600];
        struct stat st;

        snprintf(path, sizeof(path), "%s/%s", directory, name);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, mode);
}

static unsigned drafts_found;

static int count_draft(const char *path, const struct stat *st _unused_, int type _unused_, struct FTW *ftw _unused_)
{
        drafts_found += strstr(path, "draft") != NULL;
        return 0;
}

static void expect_no_drafts(const char *directory)
{
        drafts_found = 0;
        assert_int_equal(nftw(directory, count_draft, 16, FTW_PHYS), 0);
        assert_int_equal(drafts_found, 0);
}

static void layout_is_made_with_its_directories(void **state)
{
        struct layout *l = *state;
        const char *directory = place(l);
        mode_t mask = umask(022);
        _cleanup_(target_free_ptr) struct target *t = open_target(directory);
        _cleanup_(source_free_ptr) struct source *s = open_source(directory, NULL);
        _cleanup_buf_ struct buf text = { 0 };
        struct descriptor d = push_blob(t, "content");

        assert_int_equal(source_blob_read(s, &d, NULL, 0, DEADLINE_NEVER, &text, NULL), -EFBIG);
        expect_mode(directory, ".", 0755);
        expect_mode(directory, "blobs/sha256", 0755);
        expect_mode(directory, "index.json", 0644);
        expect_mode(directory, "oci-layout", 0644);
        expect_mode(directory, layout_blob_name(&d.digest), 0644);
        expect_no_drafts(directory);
        umask(mask);
}

static void what_is_pushed_is_read_back(void **state)
{
        struct layout *l = *state;
        const char *directory = place(l);
        _cleanup_(target_free_ptr) struct target *t = open_target(directory);
        _cleanup_(source_free_ptr) struct source *s = open_source(directory, NULL);
        _cleanup_(pool_free_ptr) struct pool *pool = NULL;
        _cleanup_buf_ struct buf text = { 0 };
        struct descriptor d = push_blob(t, "content"), first, second;

        assert_int_equal(pool_new(MIB, &pool), 0);
        assert_int_equal(source_blob_read(s, &d, pool, 100, DEADLINE_NEVER, &text, NULL), 0);
        assert_string_equal(text.data, "content");

        first = push_manifest(t, "one", "{\"first\":1}");
        second = push_manifest(t, "two", "{\"second\":2}");
        expect_tag(directory, "one", &first);
        expect_tag(directory, "two", &second);
        expect_no_drafts(directory);
}

static void tag_moves_to_the_manifest_pushed_last(void **state)
{
        struct layout *l = *state;
        const char *directory = place(l);
        _cleanup_(target_free_ptr) struct target *t = open_target(directory);
        struct descriptor other, second;

        other = push_manifest(t, "other", "{\"other\":1}");
        push_manifest(t, "tag", "{\"first\":1}");
        second = push_manifest(t, "tag", "{\"second\":2}");
        expect_tag(directory, "tag", &second);
        expect_tag(directory, "other", &other);
}

static void manifest_without_a_tag_is_only_stored(void **state)
{
        struct layout *l = *state;
        const char *directory = place(l);
        _cleanup_(target_free_ptr) struct target *t = open_target(directory);
        struct descriptor d = push_manifest(t, NULL, "{}");
        _cleanup_(source_free_ptr) struct source *s = open_source(directory, NULL);
        _cleanup_document_ struct document document = { 0 };

        assert_int_equal(source_manifest(s, &d.digest, DEADLINE_NEVER, &document, NULL), 0);
        assert_int_equal(source_manifest(s, NULL, DEADLINE_NEVER, &document, NULL), -ENOENT);
}

/* ---- referrers ---- */

/* Pushes and attaches an artifact of NUMBER to SUBJECT. */
static struct descriptor attach_artifact(struct target *t, const struct descriptor *subject, unsigned number)
{
        char *annotations[] = { (char *) "k", (char *) "v", NULL };
        char digest[DIGEST_STRING_MAX], text[600];
        struct error e = ERROR_INIT;
        struct descriptor d;

        snprintf(text, sizeof(text),
                 "{\"schemaVersion\":2,\"artifactType\":\"" ARTIFACT_TYPE "\",\"annotations\":{\"n\":\"%u\"},"
                 "\"subject\":{\"mediaType\":\"" OCI_MANIFEST "\",\"digest\":\"%s\",\"size\":%" PRIu64 "}}",
                 number, digest_format(&subject->digest, digest), subject->size);
        d = push_manifest(t, NULL, text);
        d.artifact_type = (char *) ARTIFACT_TYPE;
        d.annotations = annotations;
        if (target_attach(t, &subject->digest, &d, DEADLINE_NEVER, &e) < 0)
                fail_msg("%s", e.message);
        d.annotations = NULL;
        return d;
}

static size_t count_referrers(const char *directory, const struct descriptor *subject)
{
        _cleanup_(source_free_ptr) struct source *s = open_source(directory, NULL);
        struct descriptor *found = NULL;
        size_t n = 0;

        assert_int_equal(source_referrers(s, &subject->digest, DEADLINE_NEVER, &found, &n, NULL), 0);
        for (size_t k = 0; k < n; k++) {
                assert_string_equal(found[k].artifact_type, ARTIFACT_TYPE);
                assert_string_equal(descriptor_annotation(&found[k], "k"), "v");
        }
        descriptors_free(found, n);
        return n;
}

static void attached_artifact_is_found_once_and_is_no_image(void **state)
{
        struct layout *l = *state;
        const char *directory = place(l);
        _cleanup_(target_free_ptr) struct target *t = open_target(directory);
        struct descriptor image = push_manifest(t, "image", "{\"an\":\"image\"}");

        attach_artifact(t, &image, 1);
        assert_int_equal(count_referrers(directory, &image), 1);
        attach_artifact(t, &image, 1);
        assert_int_equal(count_referrers(directory, &image), 1);
        attach_artifact(t, &image, 2);
        assert_int_equal(count_referrers(directory, &image), 2);
        expect_tag(directory, NULL, &image);
}

static void layout_of_others_is_extended_and_nothing_of_it_lost(void **state)
{
        struct layout *l = *state;
        struct stored_blob layer = layout_put(l, "layer", 5), image;
        _cleanup_(target_free_ptr) struct target *t = NULL;
        _cleanup_buf_ struct buf text = { 0 };
        struct descriptor subject = { 0 };

        image = layout_image(l, "image", &layer, 1, CONFIG);
        (void) buf_append_str(&l->manifests, ",");
        layout_descriptor(&l->manifests, "application/x", &layer);
        assert_int_equal(buf_append_str(&l->manifests, ", \"unknown\" : [1.50, \"]\"] }"), 0);
        layout_finish(l);
        t = open_target(l->path);
        subject.digest = image.digest;
        subject.size = image.size;
        attach_artifact(t, &subject, 1);
        assert_int_equal(count_referrers(l->path, &subject), 1);
        expect_tag(l->path, "image", &subject);
        assert_int_equal(file_read(AT_FDCWD, layout_file(l, "index.json"), MIB, &text, NULL), 0);
        assert_non_null(strstr(text.data, ", \"unknown\" : [1.50, \"]\"] }"));
}

/* ---- blobs that are there ---- */

static void blob_that_is_there_is_taken_and_not_written_again(void **state)
{
        struct layout *l = *state;
        const char *directory = place(l);
        _cleanup_(target_free_ptr) struct target *t = open_target(directory);
        struct descriptor d = { .size = 7 };
        struct error e = ERROR_INIT;
        struct stat before, after;
        char path[600];

        assert_int_equal(digest_of(DIGEST_SHA256, "content", 7, &d.digest), 0);
        assert_int_equal(target_take_blob(t, &d, "any/repository", DEADLINE_NEVER, &e), -ENOENT);
        expect_words(&e, "is not there");
        push_blob(t, "content");
        assert_int_equal(target_take_blob(t, &d, "any/repository", DEADLINE_NEVER, &e), 0);
        snprintf(path, sizeof(path), "%s/%s", directory, layout_blob_name(&d.digest));
        assert_int_equal(stat(path, &before), 0);
        push_blob(t, "content");
        assert_int_equal(stat(path, &after), 0);
        assert_true(before.st_ino == after.st_ino);

        /* One that was cut is replaced. */
        assert_int_equal(truncate(path, 3), 0);
        assert_int_equal(target_take_blob(t, &d, "any/repository", DEADLINE_NEVER, &e), -ENOENT);
        push_blob(t, "content");
        assert_int_equal(target_take_blob(t, &d, "any/repository", DEADLINE_NEVER, &e), 0);
}

/* ---- what is no place for a layout ---- */

static void expect_unopened(const char *directory, int code, const char *words)
{
        struct error e = ERROR_INIT;
        struct target *t = NULL;

        assert_int_equal(layout_target_new(directory, &t, &e), -code);
        assert_null(t);
        expect_words(&e, words);
}

static void directory_that_is_no_layout_is_left_alone(void **state)
{
        struct layout *l = *state;

        layout_write(l, "notes.txt", "x", 1);
        expect_unopened(l->path, EEXIST, "no OCI image layout, and it is not empty");
        assert_int_equal(access(layout_file(l, "oci-layout"), F_OK), -1);
        assert_int_equal(access(layout_file(l, "index.json"), F_OK), -1);
        expect_unopened(layout_file(l, "notes.txt"), ENOTDIR, "notes.txt");
        expect_unopened(layout_file(l, "notes.txt/below"), ENOTDIR, "notes.txt");
}

static void damaged_layout_is_left_alone(void **state)
{
        struct layout *l = *state;

        layout_finish(l);
        layout_write(l, "index.json", "{", 1);
        expect_unopened(l->path, EBADMSG, "index.json");
        layout_finish(l);
        layout_write(l, "oci-layout", "{\"imageLayoutVersion\":\"2.0.0\"}", 30);
        expect_unopened(l->path, EBADMSG, "version 2.0.0 is not known");
}

static void empty_directory_becomes_a_layout(void **state)
{
        struct layout *l = *state;
        const char *directory = place(l);
        _cleanup_(target_free_ptr) struct target *t = NULL;

        assert_int_equal(make_directories(directory, 0755, NULL), 0);
        t = open_target(directory);
        target_free(open_target(directory));
        push_manifest(t, "a", "{}");
}

/* ---- several at once ---- */

#define WRITERS 8

struct writer {
        struct target *target;
        const struct descriptor *image;
        unsigned number;
        pthread_t thread;
};

static void *write_one(void *context)
{
        struct writer *w = context;

        attach_artifact(w->target, w->image, w->number);
        return NULL;
}

static void writers_of_one_target_lose_nothing_of_each_other(void **state)
{
        struct layout *l = *state;
        const char *directory = place(l);
        _cleanup_(target_free_ptr) struct target *t = open_target(directory);
        struct descriptor image = push_manifest(t, "image", "{\"an\":\"image\"}");
        struct writer writers[WRITERS];

        for (unsigned k = 0; k < WRITERS; k++) {
                writers[k] = (struct writer) { .target = t, .image = &image, .number = k };
                assert_int_equal(thread_start(&writers[k].thread, "test-writer", write_one, &writers[k]), 0);
        }
        for (unsigned k = 0; k < WRITERS; k++)
                pthread_join(writers[k].thread, NULL);
        assert_int_equal(count_referrers(directory, &image), WRITERS);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                layout_test(layout_is_made_with_its_directories),
                layout_test(what_is_pushed_is_read_back),
                layout_test(tag_moves_to_the_manifest_pushed_last),
                layout_test(manifest_without_a_tag_is_only_stored),
                layout_test(attached_artifact_is_found_once_and_is_no_image),
                layout_test(layout_of_others_is_extended_and_nothing_of_it_lost),
                layout_test(blob_that_is_there_is_taken_and_not_written_again),
                layout_test(directory_that_is_no_layout_is_left_alone),
                layout_test(damaged_layout_is_left_alone),
                layout_test(empty_directory_becomes_a_layout),
                layout_test(writers_of_one_target_lose_nothing_of_each_other),
        };

        return cmocka_run_group_tests_name("layout_target", tests, NULL, NULL);
}
