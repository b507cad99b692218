#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int err_store(struct err *err, int code, const char *format, va_list args)
{
    assert(code < 0);
    if (err && err->code == 0) {
        err->code = code;
        vsnprintf(err->text, sizeof(err->text), format, args);
    }
    return code;
}

int err_set(struct err *err, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    err_store(err, code, format, args);
    va_end(args);
    return code;
}

int err_set_errno(struct err *err, int code, const char *format, ...)
{
    bool first = err && err->code == 0;
    va_list args;
    va_start(args, format);
    err_store(err, code, format, args);
    va_end(args);
    if (first) {
        char reason[128];
        size_t used = strlen(err->text);
        snprintf(err->text + used, sizeof(err->text) - used, ": %s", strerror_r(-code, reason, sizeof(reason)));
    }
    return code;
}

int err_prefix(struct err *err, const char *format, ...)
{
    if (!err)
        return -EIO; /* whoever drops the text loses which code it was, but never that it failed */
    char where[ERR_TEXT_MAX], rest[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(where, sizeof(where), format, args);
    va_end(args);
    memcpy(rest, err->text, sizeof(rest));
    /* A sentence that grows too long loses its end, not its beginning. */
    int used = snprintf(err->text, sizeof(err->text), "%s: ", where);
    if (used > 0 && (size_t)used < sizeof(err->text)) {
        size_t room = sizeof(err->text) - (size_t)used - 1, have = strnlen(rest, sizeof(rest) - 1);
        size_t take = have < room ? have : room;
        memcpy(err->text + used, rest, take);
        err->text[(size_t)used + take] = '\0';
    }
    return err->code;
}

void err_clear(struct err *err)
{
    if (err)
        *err = (struct err){ 0 };
}

void err_printable(const void *text, size_t bytes, char *out, size_t out_size)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = text;
    size_t at = 0;
    for (size_t i = 0; i < bytes && in[i]; i++) {
        bool plain = in[i] >= 0x20 && in[i] < 0x7f;
        if (at + (plain ? 1 : 4) >= out_size)
            break;
        if (plain) {
            out[at++] = (char)in[i];
        } else {
            memcpy(out + at, (char[]){ '\\', 'x', digits[in[i] >> 4], digits[in[i] & 15] }, 4);
            at += 4;
        }
    }
    out[at] = '\0';
}
