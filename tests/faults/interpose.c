/* SPDX-License-Identifier: Apache-2.0 */

/* The allocator's entries as every library of the process finds them: those of the program come first. */

#include <stdlib.h>

#include "inject.h"

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n)
{
        return fault_in_library() ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
        return fault_in_library() ? NULL : __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
        return fault_in_library() ? NULL : __libc_realloc(p, n);
}
