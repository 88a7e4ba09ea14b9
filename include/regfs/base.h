/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What every file of regfs may use: ownership attributes, thread-safety annotations, small arithmetic.
 * Depends on nothing but the compiler and libc. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

/* Runs FUNCTION(&variable) when the variable leaves its scope. */
#define _cleanup_(function) __attribute__((cleanup(function)))
#define _printf_(string, first) __attribute__((format(printf, string, first)))
#define _unused_ __attribute__((unused))
#define _warn_unused_ __attribute__((warn_unused_result))

static inline void free_ptr(void *p)
{
        free(*(void **) p);
}

static inline void close_fd_ptr(int *fd)
{
        if (*fd >= 0)
                close(*fd);
}

#define _cleanup_free_ _cleanup_(free_ptr)
#define _cleanup_close_ _cleanup_(close_fd_ptr)

/* Defines the attribute's function for a destructor that takes a pointer and accepts NULL. */
#define DEFINE_CLEANUP(type, destructor)                      \
        static inline _unused_ void destructor##_ptr(type *p) \
        {                                                     \
                if (*p)                                       \
                        destructor(*p);                       \
        }

/* Hands a pointer on: yields its value and leaves NULL behind, so that the cleanup has nothing to do. */
#define steal_ptr(p)                         \
        ({                                   \
                __typeof__(p) _stolen = (p); \
                (p) = NULL;                  \
                _stolen;                     \
        })

static inline int steal_fd(int *fd)
{
        int stolen = *fd;

        *fd = -1;
        return stolen;
}

#define ELEMENTSOF(array) (sizeof(array) / sizeof((array)[0]))
#define MIN(a, b)                                  \
        ({                                         \
                __typeof__(a) _min_a = (a);        \
                __typeof__(b) _min_b = (b);        \
                _min_a < _min_b ? _min_a : _min_b; \
        })
#define MAX(a, b)                                  \
        ({                                         \
                __typeof__(a) _max_a = (a);        \
                __typeof__(b) _max_b = (b);        \
                _max_a > _max_b ? _max_a : _max_b; \
        })

#define KIB ((size_t) 1 << 10)
#define MIB ((size_t) 1 << 20)
#define GIB ((uint64_t) 1 << 30)

/* True when [offset, offset + length) lies within [0, total); safe against overflow. */
static inline bool range_fits(uint64_t offset, uint64_t length, uint64_t total)
{
        return offset <= total && length <= total - offset;
}

/* Clang's thread-safety analysis (-Wthread-safety); nothing with other compilers.
 * The capability itself is struct mutex in <regfs/thread.h>. */
#if defined(__clang__)
#define THREAD_ANNOTATION(x) __attribute__((x))
#else
#define THREAD_ANNOTATION(x)
#endif

/* In C, an attribute of a member can name a lock that is its sibling only where the compiler parses attributes late
 * (clang 20's -fexperimental-late-parse-attributes, which the build then gives). Elsewhere GUARDED_BY is for the
 * reader. */
#if defined(REGFS_LATE_PARSED_ATTRIBUTES)
#define GUARDED_BY(lock) THREAD_ANNOTATION(guarded_by(lock))
#define PT_GUARDED_BY(lock) THREAD_ANNOTATION(pt_guarded_by(lock))
#else
#define GUARDED_BY(lock)
#define PT_GUARDED_BY(lock)
#endif

#define CAPABILITY(name) THREAD_ANNOTATION(capability(name))
#define REQUIRES(...) THREAD_ANNOTATION(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) THREAD_ANNOTATION(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) THREAD_ANNOTATION(acquire_capability(__VA_ARGS__))
#define RELEASE(...) THREAD_ANNOTATION(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS THREAD_ANNOTATION(no_thread_safety_analysis)
