/* SPDX-License-Identifier: Apache-2.0 */

/* Command lines of any words, one a line, behind a byte that chooses the command. What -o hands on to libfuse are words
 * that regfs knows. */

#include "fuzz.h"
#include "regfs/credential.h"
#include "regfs/manifest.h"
#include "tools/command.h"

#define WORDS_MAX 16

static void check_fuse_options(const char *list)
{
        for (const char *word = list; word; word = strchr(word, ',') ? strchr(word, ',') + 1 : NULL)
                REQUIRE(strspn(word, "abcdefghijklmnopqrstuvwxyz_") > 0);
        REQUIRE(!strpbrk(list, "=\\\n "));
}

/* The options that have a language of their own. */
static void check_values(const struct regfs_options *o)
{
        _cleanup_platform_ struct platform platform = { 0 }, again = { 0 };
        _cleanup_credential_ struct credential credential = { 0 };
        struct error e = ERROR_INIT;
        int r;

        if (o->platform) {
                r = platform_parse(o->platform, &platform, &e);
                REQUIRE(r == 0 || (r == -EINVAL && is_told(r, &e)));
        }
        if (platform.os) {
                _cleanup_free_ char *text = platform_format(&platform);

                REQUIRE(text && platform_parse(text, &again, NULL) == 0 && str_eq(again.os, platform.os));
                REQUIRE(str_eq(again.architecture, platform.architecture));
                REQUIRE(platform.variant ? str_eq(again.variant, platform.variant) : !again.variant);
        }
        if (o->creds) {
                r = credential_parse(o->creds, &credential, &e);
                REQUIRE(r == 0 ? credential.user[0] && credential.secret : r == -EINVAL && is_told(r, &e));
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static const enum command commands[] = { COMMAND_MOUNT, COMMAND_INDEX, COMMAND_INSPECT, COMMAND_VERIFY };
        enum command command = commands[take_byte(&data, &size) % ELEMENTSOF(commands)];
        char *words[WORDS_MAX + 2] = { exact_text("regfs", 5) }, *argv[WORDS_MAX + 2];
        struct command_options options;
        struct error e = ERROR_INIT;
        int argc = 1, first = -1, r;

        while (size > 0 && argc <= WORDS_MAX)
                words[argc++] = take_line(&data, &size);
        memcpy(argv, words, sizeof(argv));
        command_options_init(&options, command);
        r = command_options_parse(&options, argc, argv, "", &first, &e);
        REQUIRE(r == 0 ? first > 0 && first <= argc : r == 1 || (r == -EINVAL && is_told(r, &e)));
        if (options.fuse.len > 0)
                check_fuse_options(options.fuse.data);
        if (r == 0)
                check_values(&options.image);
        command_options_clear(&options);
        for (int i = 0; i < argc; i++)
                free(words[i]);
        return 0;
}
