#include "block/nbd_export.h"

#include <errno.h>
#include <inttypes.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"

/* PIECE: one request, which every server takes; STATUS: what one question about extents may cover. */
enum { EXPORT_PIECE_BYTES = 1024 * 1024, EXPORT_STATUS_BYTES = 1 << 30 };

/* One connection, for one thread at a time. */
struct line {
    struct nbd_handle *handle; /* NULL: was lost, and is made anew by whoever needs it next */
    uint8_t *bounce;           /* EXPORT_PIECE_BYTES: a request has one buffer, a guest's has many */
    bool busy;                 /* under lock */
};

struct export
{
    struct block_image image;
    /* fixed after new */
    bool can_flush, can_trim, can_zero, can_status;
    unsigned lines; /* 1 where the server does not promise that a flush on one connection counts for all */
    struct line line[BLOCK_THREADS];

    struct lock lock;
    struct cond idle;
    /* under lock */
    uint64_t writes, flushed; /* that were done; of these, what a flush has made durable */
    bool lost; /* a server went away with writes that no flush had made durable: no later flush may say otherwise */
    char uri[];
};

static struct export *export_of(struct block_image *image)
{
    return (struct export *)image;
}

bool nbd_export_is_uri(const char *file)
{
    static const char *const schemes[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://" };
    for (unsigned i = 0; i < sizeof(schemes) / sizeof(*schemes); i++) {
        if (strncmp(file, schemes[i], strlen(schemes[i])) == 0)
            return true;
    }
    return false;
}

/* --- connections ------------------------------------------------------------------------------------------- */

static int nbd_error(void)
{
    int code = nbd_get_errno();
    return code > 0 ? -code : -EIO;
}

static int refuse(const struct export *export, struct err *err)
{
    return err_set(err, nbd_error(), "%s: %s", export->uri, nbd_get_error());
}

static int connect_line(const struct export *export, struct nbd_handle **out, struct err *err)
{
    struct nbd_handle *handle = nbd_create();
    *out = NULL;
    if (!handle)
        return refuse(export, err);
    if (nbd_add_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 || nbd_connect_uri(handle, export->uri) < 0) {
        int result = refuse(export, err);
        nbd_close(handle);
        return result;
    }
    *out = handle;
    return 0;
}

/* Until a connection is nobody's; it is the caller's until release(). A lost one is made anew once: a server that was started
 * again is found, one that is gone is the guest's I/O error. */
static int acquire(struct export *export, struct line **out)
{
    struct line *mine = NULL;
    lock(&export->lock);
    while (!mine) {
        for (unsigned i = 0; i < export->lines && !mine; i++)
            mine = export->line[i].busy ? NULL : &export->line[i];
        if (!mine)
            cond_wait(&export->idle, &export->lock);
    }
    mine->busy = true;
    unlock(&export->lock);
    *out = mine;
    return mine->handle ? 0 : connect_line(export, &mine->handle, NULL);
}

static void release(struct export *export, struct line *line)
{
    if (line->handle && nbd_aio_is_ready(line->handle) != 1) {
        nbd_close(line->handle);
        line->handle = NULL;
    }
    lock(&export->lock);
    if (!line->handle && export->writes != export->flushed)
        export->lost = true;
    line->busy = false;
    cond_signal(&export->idle);
    unlock(&export->lock);
}

static void count_write(struct export *export)
{
    lock(&export->lock);
    export->writes++;
    unlock(&export->lock);
}

/* --- reading and writing ----------------------------------------------------------------------------------- */

/* Between a guest's many buffers and the one of a request: `bytes` of them. */
static void copy_iov(const struct iovec *iov, unsigned iovs, uint8_t *bounce, size_t bytes, bool to_guest)
{
    size_t done = 0;
    for (unsigned i = 0; i < iovs && done < bytes; i++) {
        size_t part = iov[i].iov_len < bytes - done ? iov[i].iov_len : bytes - done;
        memcpy(to_guest ? iov[i].iov_base : bounce + done, to_guest ? bounce + done : iov[i].iov_base, part);
        done += part;
    }
}

static size_t piece_bytes(const struct iovec *iov, unsigned iovs)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < iovs && bytes < EXPORT_PIECE_BYTES; i++)
        bytes += iov[i].iov_len;
    return bytes < EXPORT_PIECE_BYTES ? bytes : EXPORT_PIECE_BYTES;
}

static ssize_t export_read(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct export *export = export_of(image);
    struct line *line;
    size_t bytes = piece_bytes(iov, iovs);
    if (offset >= image->bytes)
        return 0;
    bytes = bytes < image->bytes - offset ? bytes : (size_t)(image->bytes - offset);
    ssize_t result = acquire(export, &line);
    if (result == 0 && nbd_pread(line->handle, line->bounce, bytes, offset, 0) < 0)
        result = nbd_error();
    if (result == 0) {
        copy_iov(iov, iovs, line->bounce, bytes, true);
        result = (ssize_t)bytes;
    }
    release(export, line);
    return result;
}

static ssize_t export_write(struct block_image *image, uint64_t offset, const struct iovec *iov, unsigned iovs)
{
    struct export *export = export_of(image);
    struct line *line;
    ssize_t result = acquire(export, &line);
    if (result == 0) {
        size_t bytes = piece_bytes(iov, iovs);
        copy_iov(iov, iovs, line->bounce, bytes, false);
        result = nbd_pwrite(line->handle, line->bounce, bytes, offset, 0) < 0 ? nbd_error() : (ssize_t)bytes;
    }
    if (result > 0)
        count_write(export);
    release(export, line);
    return result;
}

static int export_flush(struct block_image *image)
{
    struct export *export = export_of(image);
    struct line *line;
    if (!export->can_flush) /* read only, or cache=unsafe: else it was refused at open */
        return 0;
    lock(&export->lock);
    uint64_t writes = export->writes; /* those that are done by now */
    unlock(&export->lock);
    int result = acquire(export, &line);
    if (result == 0 && nbd_flush(line->handle, 0) < 0)
        result = nbd_error();
    release(export, line);
    lock(&export->lock);
    if (export->lost)
        result = -EIO;
    else if (result == 0 && export->flushed < writes)
        export->flushed = writes;
    unlock(&export->lock);
    return result;
}

typedef int (*span_call)(struct nbd_handle *handle, uint64_t bytes, uint64_t offset, uint32_t flags);

static int span(struct export *export, span_call call, uint64_t offset, uint64_t bytes, uint32_t flags)
{
    struct line *line;
    int result = acquire(export, &line);
    while (result == 0 && bytes > 0) { /* a length has 32 bits on the wire */
        uint64_t part = bytes < EXPORT_STATUS_BYTES ? bytes : EXPORT_STATUS_BYTES;
        if (call(line->handle, part, offset, flags) < 0)
            result = nbd_error();
        offset += part;
        bytes -= part;
    }
    count_write(export);
    release(export, line);
    return result == -EINVAL || result == -ENOTSUP ? -EOPNOTSUPP : result;
}

static int export_discard(struct block_image *image, uint64_t offset, uint64_t bytes)
{
    return export_of(image)->can_trim ? span(export_of(image), nbd_trim, offset, bytes, 0) : -EOPNOTSUPP;
}

static int export_zero(struct block_image *image, uint64_t offset, uint64_t bytes, bool unmap)
{
    uint32_t flags = unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;
    return export_of(image)->can_zero ? span(export_of(image), nbd_zero, offset, bytes, flags) : -EOPNOTSUPP;
}

/* --- extents ----------------------------------------------------------------------------------------------- */

struct answer {
    uint64_t bytes; /* 0: there was none */
    bool zero;
};

/* Pairs of length and flags from the offset on; the first is enough: who asks goes on from its end. */
static int first_extent(void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error)
{
    struct answer *answer = opaque;
    (void)offset;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 && count >= 2 && answer->bytes == 0) {
        answer->bytes = entries[0];
        answer->zero = entries[1] & LIBNBD_STATE_ZERO;
    }
    return 0;
}

/* A server that does not tell is believed to have data everywhere. */
static int export_extent(struct block_image *image, uint64_t offset, uint64_t *bytes, bool *data)
{
    struct export *export = export_of(image);
    struct answer answer = { 0 };
    struct line *line;
    uint64_t left = image->bytes - offset;
    int result = export->can_status ? acquire(export, &line) : -EOPNOTSUPP;
    if (export->can_status) {
        uint64_t part = left < EXPORT_STATUS_BYTES ? left : EXPORT_STATUS_BYTES;
        if (result == 0)
            result = nbd_block_status(line->handle, part, offset,
                                      (nbd_extent_callback){ .callback = first_extent, .user_data = &answer },
                                      LIBNBD_CMD_FLAG_REQ_ONE);
        release(export, line);
    }
    bool told = result == 0 && answer.bytes > 0;
    *bytes = told && answer.bytes < left ? answer.bytes : left;
    *data = !told || !answer.zero;
    return 0;
}

/* Whether the other end has it is not to be learnt from a server: the user has named it on both sides. */
static bool export_taken_elsewhere(struct block_image *image)
{
    (void)image;
    return true;
}

/* --- opening ----------------------------------------------------------------------------------------------- */

static void export_free(struct block_image *image)
{
    struct export *export = export_of(image);
    for (unsigned i = 0; i < BLOCK_THREADS; i++) {
        if (export->line[i].handle)
            nbd_shutdown(export->line[i].handle, 0); /* says goodbye; a server that is gone already is no loss */
        nbd_close(export->line[i].handle);
        free(export->line[i].bounce);
    }
    cond_destroy(&export->idle);
    lock_destroy(&export->lock);
    free(export);
}

static const struct block_driver export_driver = {
    .name = "nbd",
    .read = export_read,
    .write = export_write,
    .flush = export_flush,
    .discard = export_discard,
    .zero = export_zero,
    .extent = export_extent,
    .taken_elsewhere = export_taken_elsewhere,
    .free = export_free,
};

/* What the export is and can; the first connection is made. */
static int learn(struct export *export, const struct block_options *options, struct err *err)
{
    struct nbd_handle *handle = export->line[0].handle;
    int64_t bytes = nbd_get_size(handle), least = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
    if (bytes < 0 || least < 0)
        return refuse(export, err);
    export->image.sector_bytes = least <= BLOCK_SECTOR_BYTES ? BLOCK_SECTOR_BYTES : (uint32_t)least;
    if (least > 4096)
        return err_set(err, -EINVAL, "%s: sectors of %" PRId64 " bytes are not possible", export->uri, least);
    export->image.bytes = (uint64_t)bytes;
    if (bytes == 0 || export->image.bytes % export->image.sector_bytes)
        return err_set(err, -EINVAL, "%s: its size, %" PRId64 " bytes, is not a multiple of %u from there on",
                       export->uri, bytes, export->image.sector_bytes);
    if (!options->readonly && nbd_is_read_only(handle) != 0)
        return err_set(err, -EROFS, "%s: the server gives it for reading only (readonly=on)", export->uri);
    export->can_flush = nbd_can_flush(handle) == 1;
    export->can_trim = nbd_can_trim(handle) == 1;
    export->can_zero = nbd_can_zero(handle) == 1;
    export->can_status = nbd_can_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
    export->lines = nbd_can_multi_conn(handle) == 1 ? BLOCK_THREADS : 1;
    if (!export->can_flush && !options->readonly && options->cache != BLOCK_UNSAFE)
        return err_set(err, -EOPNOTSUPP, "%s: the server cannot make writes durable (cache=unsafe does without)",
                       export->uri);
    return 0;
}

static int connect_all(struct export *export, const struct block_options *options, struct err *err)
{
    int result = connect_line(export, &export->line[0].handle, err);
    if (result == 0)
        result = learn(export, options, err);
    for (unsigned i = 0; i < export->lines && result == 0; i++) {
        if (i > 0)
            result = connect_line(export, &export->line[i].handle, err);
        export->line[i].bounce = malloc(EXPORT_PIECE_BYTES);
        if (!export->line[i].bounce)
            result = err_set(err, -ENOMEM, "%s: no memory", export->uri);
    }
    return result;
}

int nbd_export_open(const char *uri, const struct block_options *options, struct block_image **out, struct err *err)
{
    size_t uri_bytes = strlen(uri) + 1;
    struct export *export = calloc(1, sizeof(*export) + uri_bytes);
    *out = NULL;
    if (!export)
        return err_set(err, -ENOMEM, "%s: no memory", uri);
    export->image.driver = &export_driver;
    memcpy(export->uri, uri, uri_bytes);
    lock_init(&export->lock, LOCK_QUEUE);
    cond_init(&export->idle);
    int result = connect_all(export, options, err);
    if (result < 0) {
        export_free(&export->image);
        return result;
    }
    *out = &export->image;
    return 0;
}
