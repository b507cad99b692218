/* Chardevs: the public face, the list of all that are open, and the null device. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/chardev_priv.h"

static struct chardev *all; /* owner: the loop's thread */

void chardev_register(struct chardev *chardev, const struct chardev_kind *kind, const char *id)
{
    chardev->kind = kind;
    snprintf(chardev->id, sizeof chardev->id, "%s", id ? id : "");
    struct chardev **tail = &all;
    while (*tail)
        tail = &(*tail)->next;
    *tail = chardev;
}

void chardev_unregister(struct chardev *chardev)
{
    struct chardev **at = &all;
    while (*at && *at != chardev)
        at = &(*at)->next;
    if (*at)
        *at = chardev->next;
}

void chardev_walk(void (*visit)(void *opaque, struct chardev *chardev), void *opaque)
{
    for (struct chardev *chardev = all; chardev; chardev = chardev->next)
        visit(opaque, chardev);
}

/* --- towards the client --------------------------------------------------------------------------------- */

size_t chardev_client_room(struct chardev *chardev)
{
    if (!chardev->client || !chardev->client->receive)
        return 0;
    return chardev->client->can_receive ? chardev->client->can_receive(chardev->opaque) : CHARDEV_READ_BYTES;
}

void chardev_deliver(struct chardev *chardev, const uint8_t *data, size_t bytes)
{
    if (chardev->client && chardev->client->receive)
        chardev->client->receive(chardev->opaque, data, bytes);
}

void chardev_tell_open(struct chardev *chardev, bool open)
{
    if (chardev->client && chardev->client->opened)
        chardev->client->opened(chardev->opaque, open);
}

void chardev_tell_writable(struct chardev *chardev)
{
    if (chardev->client && chardev->client->writable)
        chardev->client->writable(chardev->opaque);
}

/* --- null ----------------------------------------------------------------------------------------------- */

static size_t null_write(struct chardev *chardev, const uint8_t *data, size_t bytes)
{
    (void)chardev;
    (void)data;
    return bytes;
}

static bool null_is_open(struct chardev *chardev)
{
    (void)chardev;
    return false;
}

static void null_nothing(struct chardev *chardev)
{
    (void)chardev;
}

static void null_free(struct chardev *chardev)
{
    free(chardev);
}

static const struct chardev_kind null_kind = {
    .write = null_write,
    .accept_input = null_nothing,
    .is_open = null_is_open,
    .attached = null_nothing,
    .free = null_free,
};

static int null_new(const char *id, struct chardev **out, struct err *err)
{
    struct chardev *chardev = calloc(1, sizeof *chardev);
    if (!chardev)
        return err_set(err, -ENOMEM, "no memory for a chardev");
    snprintf(chardev->describe, sizeof chardev->describe, "null");
    chardev_register(chardev, &null_kind, id);
    *out = chardev;
    return 0;
}

/* --- the public face ------------------------------------------------------------------------------------ */

int chardev_open(const char *id, const char *text, uv_loop_t *loop, struct chardev **out, struct err *err)
{
    *out = NULL;
    if (id && strlen(id) >= CHARDEV_ID_MAX)
        return err_set(err, -EINVAL, "chardev id '%.20s...' is longer than %d characters", id, CHARDEV_ID_MAX - 1);
    struct chardev_spec spec;
    int rc = chardev_spec_parse(text, &spec, err);
    if (rc < 0)
        return rc;
    if (spec.type == CHARDEV_NULL)
        return null_new(id, out, err);

    struct chardev_fds fds;
    char describe[sizeof((struct chardev *)0)->describe];
    rc = chardev_fds_open(&spec, &fds, describe, sizeof describe, err);
    if (rc < 0)
        return rc;
    rc = chardev_stream_new(id, &fds, loop, out, err);
    if (rc < 0)
        return err_prefix(err, "chardev %s", text);
    memcpy((*out)->describe, describe, sizeof describe);
    return 0;
}

void chardev_attach(struct chardev *chardev, const struct chardev_client *client, void *opaque)
{
    chardev->client = client;
    chardev->opaque = opaque;
    chardev->kind->attached(chardev);
    if (client && chardev->kind->is_open(chardev))
        chardev_tell_open(chardev, true);
}

size_t chardev_write(struct chardev *chardev, const void *data, size_t bytes)
{
    return chardev->kind->write(chardev, data, bytes);
}

void chardev_accept_input(struct chardev *chardev)
{
    chardev->kind->accept_input(chardev);
}

bool chardev_is_open(struct chardev *chardev)
{
    return chardev->kind->is_open(chardev);
}

const char *chardev_describe(const struct chardev *chardev)
{
    return chardev->describe;
}

const char *chardev_id(const struct chardev *chardev)
{
    return chardev->id;
}

void chardev_free(struct chardev *chardev)
{
    if (!chardev)
        return;
    chardev_unregister(chardev);
    chardev->kind->free(chardev);
}
