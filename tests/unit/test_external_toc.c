/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "registry_fixture.h"

#include "regfs/external_toc.h"

#define LAYER_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define LAYER_B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define LAYER_C "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
#define TABLE_B "sha256:1111111111111111111111111111111111111111111111111111111111111111"

/* An image of two tables; that of LAYER_A is the fake's blob. */
#define TABLES                                                                                                  \
        "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MANIFEST "\",\"config\":{\"mediaType\":"                    \
        "\"application/vnd.oci.image.config.v1+json\",\"digest\":\"" TABLE_B "\",\"size\":2},\"layers\":["      \
        "{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"" TABLE_B "\",\"size\":7," \
        "\"annotations\":{\"containerd.io/snapshot/stargz/layer.digest\":\"" LAYER_B "\"}},"                    \
        "{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"%s\",\"size\":%zu,"        \
        "\"urls\":[\"%s\"],"                                                                                    \
        "\"annotations\":{\"containerd.io/snapshot/stargz/layer.digest\":\"" LAYER_A "\"}}]}"

static char tables[2000];

static bool answer_the_other_tag_alone(struct fake *f _unused_, struct http_exchange *x, unsigned n _unused_)
{
        if (!strstr(x->target, "/manifests/") || strstr(x->target, "/manifests/" TAG "-esgztoc"))
                return false;
        respond_status(x, 404);
        return true;
}

static int setup(void **state)
{
        char digest[DIGEST_STRING_MAX], url[200];
        struct fake *f;

        if (fake_setup(state) < 0)
                return -1;
        f = *state;
        snprintf(tables, sizeof(tables), TABLES, digest_format(&f->blob_digest, digest), (size_t) BLOB_LENGTH,
                 fake_url(f, STORAGE, "/elsewhere", url, sizeof(url)));
        f->body = tables;
        f->answer[REGISTRY] = answer_the_other_tag_alone;
        return digest_of(DIGEST_SHA256, tables, strlen(tables), &f->manifest_digest);
}

static struct external_toc *tables_of(struct fake *f, const char *name)
{
        struct external_toc *x = NULL;
        struct error e = ERROR_INIT;
        char reference[300];

        if (!f->client)
                fake_client(f, NULL, NULL);
        snprintf(reference, sizeof(reference), "127.0.0.1:%u/" REPOSITORY "%s",
                 http_server_port(f->servers[REGISTRY].server), name);
        if (external_toc_new(reference, f->client, LONG_MS, &x, &e) < 0)
                fail_msg("%s", e.message);
        return x;
}

static int find(struct external_toc *x, const char *layer, struct blob **ret)
{
        struct digest d;

        assert_int_equal(digest_parse(layer, &d, NULL), 0);
        return external_toc_find(x, &d, ret);
}

static void table_is_found_by_its_layer(void **state)
{
        struct fake *f = *state;
        _cleanup_(external_toc_free_ptr) struct external_toc *x = tables_of(f, ":" TAG);
        _cleanup_(blob_free_ptr) struct blob *a = NULL, *b = NULL, *c = NULL;

        assert_int_equal(seen(f, "", ""), 0);
        assert_int_equal(find(x, LAYER_A, &a), 0);
        assert_int_equal(a->size, BLOB_LENGTH);
        assert_int_equal(find(x, LAYER_B, &b), 0);
        assert_int_equal(b->size, 7);
        assert_int_equal(find(x, LAYER_C, &c), -ENOENT);
        assert_null(c);
        assert_int_equal(seen(f, "registry GET /v2/" REPOSITORY "/manifests/" TAG "-esgztoc", ""), 1);
        assert_int_equal(seen(f, "", ""), 1);
}

static void table_is_read_from_the_registry(void **state)
{
        struct fake *f = *state;
        _cleanup_(external_toc_free_ptr) struct external_toc *x = tables_of(f, ":" TAG);
        _cleanup_(blob_free_ptr) struct blob *a = NULL;

        assert_int_equal(find(x, LAYER_A, &a), 0);
        expect_range(f, a, 100, 1000);
        assert_int_equal(seen(f, "registry GET /v2/" REPOSITORY "/blobs/", ""), 1);
}

static bool refuse_blobs(struct fake *f, struct http_exchange *x, unsigned n)
{
        return strstr(x->target, "/blobs/") ? respond_status(x, 404) : answer_the_other_tag_alone(f, x, n);
}

/* The other image is not bound to this one: it must not make regfs ask whom it likes. */
static void nobody_but_the_registry_is_asked(void **state)
{
        struct fake *f = *state;
        _cleanup_(external_toc_free_ptr) struct external_toc *x = NULL;
        _cleanup_(blob_free_ptr) struct blob *a = NULL;
        struct error e = ERROR_INIT;

        f->answer[REGISTRY] = refuse_blobs;
        x = tables_of(f, ":" TAG);
        assert_int_equal(find(x, LAYER_A, &a), 0);
        assert_int_equal(read_range(f, a, 100, 1000, LONG_MS, &e), -ENOENT);
        assert_int_equal(seen(f, "registry GET /v2/" REPOSITORY "/blobs/", ""), 1);
        assert_int_equal(seen(f, "storage", ""), 0);
}

static void tag_next_to_a_digest_counts(void **state)
{
        struct fake *f = *state;
        _cleanup_(external_toc_free_ptr) struct external_toc *x = tables_of(f, ":" TAG "@" LAYER_C);
        _cleanup_(blob_free_ptr) struct blob *a = NULL;

        assert_int_equal(find(x, LAYER_A, &a), 0);
}

static void image_without_a_tag_is_not_looked_up(void **state)
{
        static const char *const others[] = { "docker-archive:/no/such:team/app:1.0", "oci:/no/such" };
        struct fake *f = *state;
        _cleanup_(external_toc_free_ptr) struct external_toc *x = tables_of(f, "@" LAYER_C);
        struct blob *b = NULL;

        assert_int_equal(find(x, LAYER_A, &b), -ENOENT);
        assert_int_equal(seen(f, "", ""), 0);
        for (size_t k = 0; k < ELEMENTSOF(others); k++) {
                _cleanup_(external_toc_free_ptr) struct external_toc *other = NULL;

                assert_int_equal(external_toc_new(others[k], NULL, LONG_MS, &other, NULL), 0);
                assert_int_equal(find(other, LAYER_A, &b), -ENOENT);
        }
}

static void other_image_that_cannot_be_had_is_asked_for_once(void **state)
{
        struct fake *f = *state;
        _cleanup_(external_toc_free_ptr) struct external_toc *missing = tables_of(f, ":other");
        _cleanup_(external_toc_free_ptr) struct external_toc *broken = NULL;
        struct blob *b = NULL;

        assert_int_equal(find(missing, LAYER_A, &b), -ENOENT);
        assert_int_equal(find(missing, LAYER_A, &b), -ENOENT);
        assert_int_equal(seen(f, "registry ", "/manifests/other-esgztoc"), 1);

        f->body = "{\"schemaVersion\":2,\"manifests\":[]}";
        f->content_type = "application/vnd.oci.image.index.v1+json";
        assert_int_equal(digest_of(DIGEST_SHA256, f->body, strlen(f->body), &f->manifest_digest), 0);
        broken = tables_of(f, ":" TAG);
        assert_int_equal(find(broken, LAYER_A, &b), -ENOENT);
        assert_int_equal(find(broken, LAYER_B, &b), -ENOENT);
        assert_int_equal(seen(f, "registry ", "/manifests/" TAG "-esgztoc"), 1);
        assert_null(b);
}

/* ---- side by side ---- */

#define THREADS 8

struct asker {
        pthread_t thread;
        struct external_toc *x;
        struct blob *blob;
        int result;
};

static void *ask(void *arg)
{
        struct asker *a = arg;

        a->result = find(a->x, LAYER_A, &a->blob);
        return NULL;
}

static bool hold(struct fake *f, struct http_exchange *x _unused_, unsigned n _unused_)
{
        fake_hold(f);
        return false;
}

static void layers_side_by_side_cost_one_request(void **state)
{
        struct fake *f = *state;
        _cleanup_(external_toc_free_ptr) struct external_toc *x = NULL;
        struct asker askers[THREADS] = { 0 };

        f->answer[REGISTRY] = hold;
        x = tables_of(f, ":" TAG);
        for (size_t k = 0; k < THREADS; k++) {
                askers[k].x = x;
                assert_int_equal(thread_start(&askers[k].thread, "ask", ask, &askers[k]), 0);
        }
        mutex_lock(&f->lock);
        while (f->held == 0)
                cond_wait(&f->changed, &f->lock);
        mutex_unlock(&f->lock);
        fake_release(f);
        for (size_t k = 0; k < THREADS; k++) {
                pthread_join(askers[k].thread, NULL);
                assert_int_equal(askers[k].result, 0);
                assert_non_null(askers[k].blob);
                blob_free(askers[k].blob);
        }
        assert_int_equal(seen(f, "", ""), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, fake_teardown)
        const struct CMUnitTest tests[] = {
                TEST(table_is_found_by_its_layer),          TEST(table_is_read_from_the_registry),
                TEST(nobody_but_the_registry_is_asked),     TEST(tag_next_to_a_digest_counts),
                TEST(image_without_a_tag_is_not_looked_up), TEST(other_image_that_cannot_be_had_is_asked_for_once),
                TEST(layers_side_by_side_cost_one_request),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
