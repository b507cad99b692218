/* Disks that a migration copies, on the destination: announced by the stream, taken before anything is stored, synced while the
 * load goes on so that little is left for the pause, and durable before PREPARED is said.
 *
 * A thread of their own makes them durable round by round: a round's "loaded" must not wait for a disk's cache. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/failpoint.h"
#include "base/sandbox.h"
#include "migration/incoming.h"

struct incoming_disks {
    /* fixed after new */
    bool confined;
    struct thread thread;
    struct lock lock;
    struct cond changed;
    /* under lock */
    struct block *block[MACHINE_DRIVES_MAX];
    unsigned count;
    bool wanted, busy, ending;
    int64_t sync_ns; /* the newest */
    struct err err;  /* the first failure */
    /* owner: the migrate thread */
    int64_t told_ns; /* sync_ns, as the source knows it */
    bool slot_seen[MACHINE_SLOTS];
};

/* --- the thread --------------------------------------------------------------------------------------------- */

static int sync_all(struct block *const *block, unsigned count, struct err *err)
{
    int rc = 0;
    for (unsigned i = 0; i < count && rc == 0; i++)
        rc = block_flush(block[i], err);
    return rc;
}

static void sync_run(void *opaque)
{
    struct incoming_disks *disks = opaque;
    struct err none = { 0 };
    if (disks->confined)
        sandbox_enter(SANDBOX_WORKER, NULL, &none); /* what this host does not have was said before */
    lock(&disks->lock);
    for (;;) {
        while (!disks->wanted && !disks->ending)
            cond_wait(&disks->changed, &disks->lock);
        if (disks->ending)
            break;
        struct err err = { 0 };
        unsigned count = disks->count;
        disks->wanted = false;
        disks->busy = true;
        unlock(&disks->lock);
        int64_t start_ns = clock_now_ns();
        int rc = sync_all(disks->block, count, &err);
        lock(&disks->lock);
        disks->sync_ns = clock_now_ns() - start_ns;
        if (rc < 0 && disks->err.code == 0)
            disks->err = err;
        disks->busy = false;
        cond_broadcast(&disks->changed);
    }
    unlock(&disks->lock);
}

enum { SAY_EVERY_NS = 500 * 1000000 };

static int make(struct incoming *i)
{
    struct incoming_disks *disks = i->disks ? i->disks : calloc(1, sizeof(*disks));
    if (i->disks)
        return 0;
    if (!disks)
        return err_set(&i->err, -ENOMEM, "no memory for disks that arrive");
    lock_init(&disks->lock, LOCK_LEAF);
    cond_init(&disks->changed);
    disks->confined = !i->one_way && i->m->sandbox != MIGRATION_SANDBOX_OFF;
    i->disks = disks;
    return thread_start(&disks->thread, "sync", sync_run, disks, &i->err);
}

/* --- a disk begins -------------------------------------------------------------------------------------------- */

/* Emptying an image may take a while, and the source wants to hear something. */
static int goes_on(void *opaque)
{
    struct incoming *i = opaque;
    if (migration_cancelled(i->m))
        return -ECANCELED;
    return clock_now_ns() - i->told_ns > SAY_EVERY_NS && !i->one_way ? incoming_say_loaded(i) : 0;
}

static int check(struct incoming *i, const struct section_head *head, const struct section_disk *disk)
{
    struct block *block = machine_disk(i->machine, disk->slot);
    if (i->progress[0].started || i->source_count == 1 + MACHINE_DRIVES_MAX)
        return err_set(&i->err, -EPROTO, "section %s, slot %u: a disk %s", head->name, disk->slot,
                       i->progress[0].started ? "behind memory" : "too many");
    if (head->id != i->source_count + 1)
        return err_set(&i->err, -EPROTO, "section %s, slot %u: id %u, expected %u", head->name, disk->slot, head->id,
                       i->source_count + 1);
    if (!block)
        return err_set(&i->err, -EPROTO, "section %s: the source has a disk in slot %u, this machine none", head->name,
                       disk->slot);
    const char *name = block_options_of(block)->name;
    if (i->disks->slot_seen[disk->slot])
        return err_set(&i->err, -EPROTO, "section %s, slot %u: it was started twice", head->name, disk->slot);
    if (block_options_of(block)->readonly)
        return err_set(&i->err, -EROFS, "disk '%s' is to be copied, and is readonly here", name);
    if (block_bytes(block) != disk->bytes)
        return err_set(&i->err, -EINVAL, "disk '%s' has %" PRIu64 " bytes here, and '%s' %" PRIu64 " at the source",
                       name, block_bytes(block), disk->name, disk->bytes);
    /* Taking it is what tells it from the source's own. */
    if (!block_excludes(block))
        return err_set(&i->err, -ENOTSUP,
                       "disk '%s' has no locks that would tell it from the source's own: nothing is copied onto it",
                       name);
    return 0;
}

int incoming_disk_start(struct incoming *i, const struct section_head *head)
{
    struct section_disk disk;
    int rc = sections_read_disk(i->channel, head, &disk, &i->err);
    if (rc == 0)
        rc = make(i);
    if (rc == 0)
        rc = check(i, head, &disk);
    /* Not the source's own image, if locks reach as far: that one is taken. */
    if (rc == 0)
        rc = machine_take_disk(i->machine, disk.slot, &i->err);
    if (rc < 0)
        return rc;
    struct block *block = machine_disk(i->machine, disk.slot);
    struct source **source = &i->sources[i->source_count];
    rc = source_disk_new(block, head->id, (enum disk_copy)disk.copy, source, &i->err);
    if (rc < 0)
        return rc;
    i->progress[i->source_count].started = true;
    i->disks->slot_seen[disk.slot] = true;
    rc = source_disk_prepare(*source, goes_on, i, &i->err);
    int added = loader_add_source(i->loader, *source, rc < 0 ? NULL : &i->err);
    i->source_count++;
    lock(&i->disks->lock);
    i->disks->block[i->disks->count++] = block;
    unlock(&i->disks->lock);
    return rc < 0 ? rc : added;
}

/* A source that said that it sends its disks was not asked whether they are shared. */
int incoming_disks_all(struct incoming *i)
{
    for (unsigned slot = 0; slot < MACHINE_SLOTS && i->peer_sends_disks; slot++) {
        struct block *block = machine_disk(i->machine, slot);
        if (block && !block_options_of(block)->readonly && !(i->disks && i->disks->slot_seen[slot]))
            return err_set(&i->err, -EINVAL, "disk '%s' may be written here, and the source does not send it",
                           block_options_of(block)->name);
    }
    return 0;
}

/* For whoever asks how far it is: what is to come only the source knows. */
static void note_progress(struct incoming *i)
{
    struct migration *m = i->m;
    lock(&m->lock);
    m->disks = i->source_count - 1;
    for (unsigned s = 1; s < i->source_count; s++) {
        struct migration_disk *disk = &m->disk[s - 1];
        *disk = (struct migration_disk){ .total = source_disk_bytes(i->sources[s]),
                                         .copied = source_disk_stored(i->sources[s]) };
        snprintf(disk->name, sizeof(disk->name), "%s", block_options_of(source_disk_block(i->sources[s]))->name);
    }
    unlock(&m->lock);
}

/* --- syncing -------------------------------------------------------------------------------------------------- */

void incoming_disks_round(struct incoming *i)
{
    struct incoming_disks *disks = i->disks;
    if (!disks)
        return;
    note_progress(i);
    lock(&disks->lock);
    disks->wanted = true;
    cond_broadcast(&disks->changed);
    unlock(&disks->lock);
}

void incoming_disks_say(struct incoming *i)
{
    struct incoming_disks *disks = i->disks;
    uint8_t payload[8];
    if (disks)
        note_progress(i);
    if (!disks || !i->peer_sends_disks)
        return;
    lock(&disks->lock);
    int64_t sync_ns = disks->sync_ns;
    unlock(&disks->lock);
    if (sync_ns == disks->told_ns)
        return;
    disks->told_ns = sync_ns;
    be64_put(payload, (uint64_t)sync_ns);
    incoming_say(i, MESSAGE_SYNCED, payload, sizeof(payload));
}

int incoming_disks_durable(struct incoming *i)
{
    struct incoming_disks *disks = i->disks;
    if (!disks)
        return 0;
    lock(&disks->lock);
    disks->wanted = false;
    while (disks->busy)
        cond_wait(&disks->changed, &disks->lock);
    struct err failed = disks->err;
    unlock(&disks->lock);
    return failed.code ? err_set(&i->err, failed.code, "%s", failed.text)
                       : sync_all(disks->block, disks->count, &i->err);
}

void incoming_disks_end(struct incoming *i)
{
    struct incoming_disks *disks = i->disks;
    while (i->source_count > 1)
        source_disk_free(i->sources[--i->source_count]);
    if (!disks)
        return;
    lock(&disks->lock);
    disks->ending = true;
    cond_broadcast(&disks->changed);
    unlock(&disks->lock);
    thread_join(&disks->thread);
    cond_destroy(&disks->changed);
    lock_destroy(&disks->lock);
    free(disks);
    i->disks = NULL;
    if (i->at != TARGET_RUNS)
        machine_let_go_disks(i->machine);
}
