/* SPDX-License-Identifier: Apache-2.0 */

#include "confined.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "regfs/broker.h"
#include "regfs/sandbox.h"

/* As much as a main thread has. */
#define OPEN_STACK_SIZE (8 * MIB)

/* At its end a program with a sanitizer looks at its own threads with ptrace, and reads files of /proc all the time. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

struct confinement {
        struct sandbox *sandbox;
        struct broker *broker;
        char *directory;
        long pid;
};

/* ---- unmounting, in a process of the broker's ---- */

/* Only our own mount, should another one have been put on top of it since. */
static int unmount(void *context, struct error *e)
{
        const struct confinement *c = context;
        _cleanup_(mount_table_clear) struct mount_table table = { 0 };
        const struct mount_entry *top = NULL;
        int r = mount_table_read(&table, e);

        if (r < 0)
                return r;
        for (size_t k = 0; k < table.count; k++)
                if (str_eq(table.items[k].directory, c->directory))
                        top = &table.items[k];
        if (!top)
                return 0;
        if (top->pid != c->pid)
                return error_set(e, ERROR_MOUNT, EBUSY, "%s: %s was mounted on top since: not unmounted", c->directory,
                                 top->reference);
        return mount_remove(c->directory, true, e);
}

/* ---- begin and end ---- */

static int wanted(const struct command_options *o, bool *ret, struct error *e)
{
        *ret = false;
        if (o->sandbox == SANDBOX_OFF)
                return 0;
        if (!sandbox_is_built()) {
                if (o->sandbox == SANDBOX_ON)
                        return error_set(e, ERROR_USAGE, ENOSYS,
                                         "--sandbox=on: this regfs was built without libseccomp");
                log_info("no sandbox: built without libseccomp");
                return 0;
        }
        if (SANITIZED && o->sandbox == SANDBOX_DEFAULT) {
                log_info("no sandbox: built with a sanitizer");
                return 0;
        }
        *ret = true;
        return 0;
}

int confinement_begin(const struct command_options *o, const char *reference, const char *directory,
                      struct confinement **ret, struct error *e)
{
        _cleanup_(confinement_end_ptr) struct confinement *c = NULL;
        struct broker_options broker = {
                .credentials = { .authfile = o->image.authfile },
                .unmount = unmount,
        };
        bool confined;
        int r;

        r = wanted(o, &confined, e);
        if (r < 0 || !confined)
                return r;
        c = calloc(1, sizeof(*c));
        if (!c)
                return error_oom(e);
        c->pid = (long) getpid();
        c->directory = strdup(directory);
        if (!c->directory)
                return error_oom(e);
        sandbox_settle_home();
        broker.context = c;
        r = broker_start(&broker, &c->broker, e);
        if (r < 0)
                return r;
        credential_use_broker(c->broker);
        r = sandbox_new(&c->sandbox, e);
        sandbox_preload(); /* beside the making of the filter */
        if (r == 0)
                r = sandbox_allow_image(c->sandbox, reference, &o->image, e);
        if (r < 0)
                return r;
        *ret = steal_ptr(c);
        return 0;
}

struct confinement *confinement_end(struct confinement *c)
{
        if (!c)
                return NULL;
        credential_use_broker(NULL);
        broker_stop(c->broker);
        sandbox_free(c->sandbox);
        free(c->directory);
        free(c);
        return NULL;
}

/* ---- opening ---- */

struct opening {
        struct sandbox *sandbox;
        const char *reference;
        const struct regfs_options *options;
        struct image *image;
        struct error error;
        int result;
};

static void *open_confined(void *arg)
{
        struct opening *o = arg;

        o->result = sandbox_enter(o->sandbox, &o->error);
        if (o->result == 0)
                o->result = image_open(o->reference, o->options, &o->image, &o->error);
        return NULL;
}

/* Signals are for the main thread: whoever opens asks it about them by its progress. */
static int start_thread(pthread_t *ret, void *(*run)(void *), void *arg)
{
        pthread_attr_t attributes;
        sigset_t all, old;
        int r;

        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, OPEN_STACK_SIZE);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(ret, &attributes, run, arg);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attributes);
        return -r;
}

int confinement_open(struct confinement *c, const char *reference, const struct regfs_options *options,
                     struct image **ret, struct error *e)
{
        struct opening o = { .reference = reference, .options = options };
        pthread_t thread;
        int r;

        if (!c)
                return image_open(reference, options, ret, e);
        o.sandbox = c->sandbox;
        r = start_thread(&thread, open_confined, &o);
        if (r < 0)
                return error_errno(e, -r, "thread");
        pthread_join(thread, NULL);
        if (o.result < 0) {
                *e = o.error;
                return o.result;
        }
        *ret = o.image;
        return 0;
}

static int ask_unmount(void *context, struct error *e)
{
        return broker_unmount(context, e);
}

void confinement_for_session(struct confinement *c, struct session_options *options)
{
        if (!c)
                return;
        options->unmount = ask_unmount;
        options->unmount_context = c->broker;
}

int confinement_enter(struct confinement *c, struct error *e)
{
        return c ? sandbox_enter(c->sandbox, e) : 0;
}
