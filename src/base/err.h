/* Errors: a negative errno, and one sentence written where the failure is understood.
 *
 * Functions that can fail return 0 or more, or -errno; they take a struct err * as their last argument and
 * put the sentence there. Callers add where it happened with err_prefix(). Nothing below main.c prints.
 * An err belongs to one thread; hand it over by copying. NULL is allowed everywhere and drops the text. */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

enum { ERR_TEXT_MAX = 512 };

struct err {
    int code;                /* 0, or a negative errno: the first one set stays */
    char text[ERR_TEXT_MAX]; /* one sentence, no newline, no trailing dot */
};

/* Set the first error; returns code (negative) so that "return err_set(err, -EINVAL, ...)" reads well. */
int err_set(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, with ": " and strerror(-code) appended. */
int err_set_errno(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Put "format: " before the text that is there; returns err->code, or -EIO where err is NULL and nobody knows it. */
int err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

void err_clear(struct err *err);

/* A stranger's words for a sentence: at most `bytes` of text, up to a NUL, into out, always ended. Whatever is not printable
 * ASCII becomes \xHH, so that no terminal obeys it; what does not fit is left out. */
void err_printable(const void *text, size_t bytes, char *out, size_t out_size);
