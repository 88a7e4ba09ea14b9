/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The parts of the search for a credential: one file, one helper program. In all three, finding nothing is success with
 * an anonymous credential. */

#include "regfs/broker.h"
#include "regfs/credential.h"
#include "regfs/json.h"

#define CREDENTIAL_HELPER_LIMIT_MS 30000
#define CREDENTIAL_HELPER_OUTPUT_MAX MIB
#define CREDENTIAL_FILE_MAX MIB

/* Under which a credential is looked for. */
struct credential_subject {
        const char *host;
        const char *repository;
        uint64_t helper_limit_ms; /* each helper is killed then */
};

/* credential_find with another limit for helpers. */
int credential_find_subject(const struct credential_options *options, const struct credential_subject *subject,
                            struct credential *ret, struct error *e);

/* Looks into the file at PATH. Errors name it; that it is not there is one unless it MAY_BE_ABSENT. */
int credential_file_find(const char *path, bool may_be_absent, const struct credential_subject *subject,
                         struct credential *ret, struct error *e);

/* Runs "docker-credential-NAME get" for SERVER, in a process group of its own: killed as a whole at the limit, and the
 * program itself always reaped. Standard output is never quoted when it may hold a secret. */
int credential_process_get(const char *name, const char *server, uint64_t limit_ms, struct credential *ret,
                           struct error *e);

/* The running alone, in this process: *RET gets what the program wrote, whatever its status. REQUESTER is the write end
 * of a pipe, or -1: once nobody reads it any more the helper is killed, and this returns -ECANCELED. */
int credential_process_run(const char *name, const char *server, uint64_t limit_ms, int requester,
                           struct helper_output *ret, struct error *e);

/* What credential_use_broker set. */
struct broker *credential_broker(void);

/* What a helper wrote: {"ServerURL": …, "Username": …, "Secret": …}, N bytes; the user "<token>" says that the secret is
 * an identity token. 0, -ENOMEM, or -EBADMSG with *RET_WHY, which quotes nothing. */
int credential_answer_parse(const char *text, size_t n, struct credential *ret, const char **ret_why);

/* json_free for a document with secrets: overwrites all its strings first. */
struct json *secret_json_free(struct json *root);
DEFINE_CLEANUP(struct json *, secret_json_free)
