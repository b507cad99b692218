#include "block/format.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "block/nbd_export.h"
#include "block/qcow2.h"
#include "block/raw.h"

enum { PATH_BYTES = 4096 };

struct chain {
    struct {
        dev_t dev;
        ino_t ino;
    } seen[FORMAT_CHAIN_MAX];
    unsigned count;
};

static int open_one(const struct format_source *source, const struct block_options *options, struct chain *chain,
                    struct block_image **out, struct err *err);

/* An image must not be below itself, whatever it is called there. */
static int remember(struct chain *chain, const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return err_set_errno(err, -errno, "%s: it cannot be opened", path);
    for (unsigned i = 0; i < chain->count; i++) {
        if (chain->seen[i].dev == st.st_dev && chain->seen[i].ino == st.st_ino)
            return err_set(err, -ELOOP, "%s: the chain of backing files comes back to it", path);
    }
    if (chain->count == FORMAT_CHAIN_MAX)
        return err_set(err, -ELOOP, "%s: more than %d images below each other", path, FORMAT_CHAIN_MAX);
    chain->seen[chain->count].dev = st.st_dev;
    chain->seen[chain->count++].ino = st.st_ino;
    return 0;
}

/* A name that does not begin with a slash is as seen from the image that it is in. */
static int resolve(const char *image, const char *name, char *out, struct err *err)
{
    char shown[2 * QCOW2_NAME_MAX];
    const char *slash = strrchr(image, '/'), *colon = strchr(name, ':');
    err_printable(name, strlen(name), shown, sizeof(shown));
    if (strncmp(name, "file:", 5) == 0) {
        name += 5;
    } else if (colon && (!strchr(name, '/') || colon < strchr(name, '/'))) {
        return err_set(err, -ENOTSUP, "%s: its backing file '%s' is no path of a file", image, shown);
    }
    int folder = name[0] != '/' && slash ? (int)(slash - image + 1) : 0;
    int bytes = snprintf(out, PATH_BYTES, "%.*s%s", folder, image, name);
    return bytes < PATH_BYTES ? 0 : err_set(err, -ENAMETOOLONG, "%s: the path of its backing file is too long", image);
}

static int format_of(const char *image, const char *word, enum block_format *out, struct err *err)
{
    char shown[64];
    *out = BLOCK_FORMAT_ANY;
    if (word[0] == 0)
        return 0;
    if (strcmp(word, "qcow2") == 0)
        *out = BLOCK_FORMAT_QCOW2;
    else if (strcmp(word, "raw") == 0 || strcmp(word, "file") == 0 || strcmp(word, "host_device") == 0)
        *out = BLOCK_FORMAT_RAW;
    else {
        err_printable(word, strlen(word), shown, sizeof(shown));
        return err_set(err, -ENOTSUP, "%s: the format of its backing file, '%s', is neither raw nor qcow2", image,
                       shown);
    }
    return 0;
}

static int open_below(const struct format_source *source, const struct qcow2_backing *said,
                      const struct block_options *options, struct chain *chain, struct block_image *image,
                      struct err *err)
{
    struct block_options below = *options;
    struct format_source lower = { .file = source->backing, .format = source->backing_format };
    struct block_image *backing;
    char path[PATH_BYTES];
    below.readonly = true;
    below.discard = false;
    if (source->backing ? !source->backing[0] : !said->file[0]) {
        qcow2_set_backing(image, NULL, source->backing != NULL);
        return 0;
    }
    if (!source->backing) {
        int result = resolve(source->file, said->file, path, err);
        if (result == 0)
            result = format_of(source->file, said->format, &lower.format, err);
        if (result < 0)
            return result;
        lower.file = path;
    }
    int result = open_one(&lower, &below, chain, &backing, err);
    if (result < 0)
        return err_prefix(err, "%s: its backing file", source->file);
    qcow2_set_backing(image, backing, source->backing != NULL);
    return 0;
}

static int open_one(const struct format_source *source, const struct block_options *options, struct chain *chain,
                    struct block_image **out, struct err *err)
{
    struct qcow2_backing said;
    struct block_image *file;
    *out = NULL;
    if (source->backing && source->format != BLOCK_FORMAT_QCOW2)
        return err_set(err, -EINVAL, "%s: only a qcow2 image has something below it", source->file);
    if (nbd_export_is_uri(source->file))
        return source->format == BLOCK_FORMAT_QCOW2
                   ? err_set(err, -ENOTSUP, "%s: a qcow2 image lies in a file; what a server exports is raw",
                             source->file)
                   : nbd_export_open(source->file, options, out, err);
    int result = remember(chain, source->file, err);
    if (result < 0)
        return result;
    bool below = chain->count > 1;
    if (source->format != BLOCK_FORMAT_QCOW2) {
        result = raw_open(source->file, source->format == BLOCK_FORMAT_RAW, options, out, err);
        if (result == 0 && below)
            raw_stays_open(*out);
        return result;
    }
    result = raw_open_container(source->file, options, &file, err);
    if (result < 0)
        return result;
    if (below)
        raw_stays_open(file);
    result = qcow2_new(file, source->file, options, out, &said, err);
    if (result < 0)
        return result;
    result = open_below(source, &said, options, chain, *out, err);
    if (result < 0) {
        (*out)->driver->free(*out);
        *out = NULL;
    }
    return result;
}

int format_open(const struct format_source *source, const struct block_options *options, struct block_image **out,
                struct err *err)
{
    struct chain chain = { .count = 0 };
    return open_one(source, options, &chain, out, err);
}
