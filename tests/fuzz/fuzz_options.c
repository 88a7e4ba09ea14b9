/* SPDX-License-Identifier: Apache-2.0 */

/* Command lines of any words, one a line, behind a byte that chooses the command. What -o hands on to libfuse are words
 * that regfs knows. */

#include "fuzz.h"
#include "tools/command.h"

#define WORDS_MAX 16

static void check_fuse_options(const char *list)
{
        for (const char *word = list; word; word = strchr(word, ',') ? strchr(word, ',') + 1 : NULL)
                REQUIRE(strspn(word, "abcdefghijklmnopqrstuvwxyz_") > 0);
        REQUIRE(!strpbrk(list, "=\\\n "));
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
        command_options_clear(&options);
        for (int i = 0; i < argc; i++)
                free(words[i]);
        return 0;
}
