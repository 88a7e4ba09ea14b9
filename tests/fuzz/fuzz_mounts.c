/* SPDX-License-Identifier: Apache-2.0 */

/* A mount table in which any user has given his mounts the names that he likes. */

#include "fuzz.h"
#include "regfs/mount.h"

/* What a mount of ours says of itself is read the same again, unless the reference makes that ambiguous. */
static void check_entry(const struct mount_entry *m)
{
        REQUIRE(m->directory && m->reference && m->digest && m->platform && m->pid >= 0);
        REQUIRE(!strchr(m->digest, '@') && !strchr(m->platform, '#'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        _cleanup_(mount_table_clear) struct mount_table table = { 0 };
        _cleanup_free_ char *text = exact_text(data, size);

        REQUIRE(mount_table_parse(text, &table, NULL) == 0);
        for (size_t i = 0; i < table.count; i++)
                check_entry(&table.items[i]);
        return 0;
}
