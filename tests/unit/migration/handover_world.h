/* A source, a destination and the lines between them as one small value, and how both perform what handover.c decides:
 * outgoing_handover.c, outgoing_doubt.c and incoming_handover.c without time, threads and bytes. What may happen to such
 * a world stands in handover_moves.h; test_handover_model.c walks all of them.
 *
 * A line holds a set of words, each with the key (migration and attempt) it was said for: it keeps no order, so a word
 * may be as late as it likes. Actions are performed one at a time, and between any two of them a process may die. */
#pragma once
#include <stdbool.h>
#include <string.h>

#include "migration/handover.h"

/* Two migrations with two attempts each, and one more that a destination may wait for after a RETRACT; new lines at the
 * same time. */
enum { ATTEMPTS = 3, KEYS = 2 * ATTEMPTS, ASKS = 2, NO_KEY = 0xff };
enum { DO_NEXT_ATTEMPT = 1 << 15 }; /* the source's last action after a RETRACT that it goes on after */

enum word { /* EOF: the last round, the devices and the EOF, and for a blind peer GO as well */
            WORD_EOF,
            WORD_GO,
            WORD_RETRACT,
            WORD_DONE,
            WORD_RESUME,
            WORD_PREPARED,
            WORD_RUNNING,
            WORD_REFUSED,
            WORD_ERROR, /* or REFUSAL, over a new line */
            WORDS
};
enum { TO_SOURCE = 1 << WORD_PREPARED | 1 << WORD_RUNNING | 1 << WORD_REFUSED | 1 << WORD_ERROR };
enum { TO_TARGET = (1 << WORDS) - 1 - TO_SOURCE };

enum line { LINE_FIRST, LINE_ASK, LINE_NONE = LINE_ASK + ASKS };
enum life { ALIVE, DEAD, COLD }; /* COLD: a new process, which started the guest from its disk */
enum holder { NOBODY, SOURCE, TARGET };

struct world {
    uint64_t first;                    /* on the first line: bit key * WORDS + word */
    uint16_t ask[ASKS];                /* on a new line: bit word; all for ask_key */
    uint16_t source_todo, target_todo; /* of enum handover_action: decided, not performed yet */
    uint8_t ask_key[ASKS];
    uint8_t source, target;           /* enum handover_state */
    uint8_t source_is, target_is;     /* enum life */
    uint8_t source_runs, target_runs; /* the guest's vCPUs */
    uint8_t source_key, target_key;   /* NO_KEY: a destination that waits for a hello */
    uint8_t source_line, target_line; /* enum line: which of them is read */
    uint8_t first_up, ask_up;         /* bit per new line */
    uint8_t ask_over;                 /* the source has its answer: it closes the new line when it has acted on it */
    uint8_t doubted;                  /* struct outgoing's */
    uint8_t target_has, copy;         /* a whole guest is loaded there; of which key */
    uint8_t target_ran;               /* ever */
    uint8_t asked;                    /* the last key that an EOF was sent for, or NO_KEY */
    uint8_t stale;                    /* bit per key: the source ran on after it sent this copy */
    uint8_t written;                  /* RELEASED, on the source's disk: 0 or its key + 1 */
    uint8_t lingers;                  /* a destination at its end still answers */
    uint8_t disk;                     /* enum holder of the image's lock */
    uint8_t lost;                     /* a process was killed that alone held the guest */
};

/* What is wrong on purpose. */
enum flaw {
    NO_FLAW,
    FLAW_KEYS,          /* words of other attempts and migrations are believed */
    FLAW_HASTY,         /* an operator says "here" at the source without a look at the destination */
    FLAW_HASTY_TARGET,  /* and at the destination, without a look at the source's disk */
    FLAW_LATE_FORGET,   /* the guest runs on before RELEASED is forgotten */
    FLAW_EARLY_RETRACT, /* RETRACT is said before RELEASED is forgotten */
    FLAW_NOTE,          /* a restart does not read what was written down */
    FLAW_ANSWER,        /* a second PREPARED counts as the answer to GO */
    FLAW_MUTE,          /* a source that took its guest back says so over the first line alone */
    FLAW_ROW            /* a row of the table is another */
};

struct model {
    bool blind;     /* the destination cannot answer and starts by itself */
    bool once;      /* one attempt of one migration */
    bool rehearsal; /* the first migration is only rehearsed */
    enum flaw flaw;
    enum handover_state state; /* FLAW_ROW */
    enum handover_event event;
    struct handover_step instead;
    const char *broken; /* the first promise that failed */
    unsigned long stale_words;
    bool met[HANDOVER_STATES][HANDOVER_EVENTS];
};

static inline void broken(struct model *m, const char *why)
{
    if (!m->broken)
        m->broken = why;
}

static inline struct handover_step decide(struct model *m, uint8_t state, enum handover_event event)
{
    m->met[state][event] = true;
    if (m->flaw == FLAW_ROW && m->state == state && m->event == event)
        return m->instead;
    return handover_step((enum handover_state)state, event);
}

/* --- what is on a line -------------------------------------------------------------------------------------- */

static inline uint64_t first_bit(uint8_t key, enum word word)
{
    return UINT64_C(1) << (key * WORDS + word);
}

static inline void clear_words(struct world *w, uint8_t line, unsigned words)
{
    if (line == LINE_FIRST)
        for (uint8_t key = 0; key < KEYS; key++)
            w->first &= ~((uint64_t)words << key * WORDS);
    else if (line < LINE_NONE)
        w->ask[line - LINE_ASK] &= (uint16_t)~words;
}

static inline bool line_is_up(const struct world *w, uint8_t line)
{
    return line == LINE_FIRST ? w->first_up : line < LINE_NONE && w->ask_up >> (line - LINE_ASK) & 1;
}

static inline void put_word(struct world *w, uint8_t line, uint8_t key, enum word word)
{
    if (!line_is_up(w, line))
        return;
    if (line == LINE_FIRST)
        w->first |= first_bit(key, word);
    else
        w->ask[line - LINE_ASK] |= (uint16_t)(1 << word);
}

/* --- the source performs -------------------------------------------------------------------------------------- */

static inline void source_says(const struct model *m, struct world *w, enum word word)
{
    if (m->blind && word != WORD_EOF)
        return;
    if (w->source_line == LINE_FIRST && w->doubted && word != WORD_DONE)
        return; /* send_word(): in doubt the old line decides nothing any more */
    put_word(w, w->source_line, w->source_key, word);
}

/* All that was decided is done: an answered line is closed, and at an end the first one too. */
static inline void source_settles(struct world *w)
{
    bool ended = handover_ended((enum handover_state)w->source);
    if (w->source_todo)
        return;
    if (w->source_line >= LINE_ASK && (w->ask_over || ended)) {
        w->ask_up &= (uint8_t) ~(1 << (w->source_line - LINE_ASK));
        clear_words(w, w->source_line, TO_SOURCE);
        w->source_line = LINE_FIRST;
        w->ask_over = 0;
    }
    if (ended) {
        w->first_up = 0;
        clear_words(w, LINE_FIRST, TO_SOURCE);
        w->doubted = 0;
    }
}

static inline void source_feed(struct model *m, struct world *w, enum handover_event event)
{
    struct handover_step step = decide(m, w->source, event);
    w->source = (uint8_t)step.state;
    w->doubted = w->doubted || step.state == SOURCE_UNRESOLVED;
    w->source_todo = (uint16_t)step.actions;
    if (m->blind && step.state == SOURCE_UNRESOLVED)
        w->first_up = 0; /* nobody will say anything over it */
    source_settles(w);
}

static inline void source_resumes(struct model *m, struct world *w)
{
    if (w->disk == TARGET)
        broken(m, "the source takes its guest back, and its disk is the destination's");
    w->disk = SOURCE;
    w->source_runs = 1;
    w->stale |= (uint8_t)(1 << w->source_key);
}

/* The lowest bit of what is to do, but WRITE_RELEASED: that has two outcomes. */
static inline void source_acts(struct model *m, struct world *w)
{
    unsigned todo = w->source_todo, action = todo & -todo;
    if (m->flaw == FLAW_LATE_FORGET && todo & DO_RESUME)
        action = DO_RESUME;
    if (m->flaw == FLAW_EARLY_RETRACT && todo & DO_SEND_RETRACT)
        action = DO_SEND_RETRACT;
    w->source_todo &= (uint16_t)~action;
    switch (action) {
    case DO_SEND_RETRACT: source_says(m, w, WORD_RETRACT); break;
    case DO_FORGET_RELEASED: w->written = 0; break;
    case DO_RESUME: source_resumes(m, w); break;
    case DO_SEND_GO:
        if (!w->written)
            broken(m, "GO is said, and RELEASED was not written down");
        source_says(m, w, m->blind ? WORD_EOF : WORD_GO);
        break;
    case DO_SEND_DONE: source_says(m, w, WORD_DONE); break;
    case DO_NEXT_ATTEMPT: w->source_key++; break;
    default: broken(m, "the source is to do what only a destination can"); break;
    }
    source_settles(w);
}

static inline void source_writes(struct model *m, struct world *w, bool well)
{
    w->written = (uint8_t)(w->source_key + 1); /* or a part of it */
    if (well)
        w->disk = NOBODY;
    w->source_todo = 0;
    source_feed(m, w, well ? HANDOVER_WRITTEN : HANDOVER_WRITE_FAILED);
}

/* --- the destination performs ----------------------------------------------------------------------------------- */

static inline void target_says(const struct model *m, struct world *w, enum word word)
{
    if (!m->blind)
        put_word(w, w->target_line, w->target_key, word);
}

static inline void target_leaves_line(struct world *w)
{
    clear_words(w, w->target_line, TO_TARGET);
    if (w->target_line == LINE_FIRST)
        w->first_up = 0;
    else if (w->target_line < LINE_NONE)
        w->ask_up &= (uint8_t) ~(1 << (w->target_line - LINE_ASK));
    w->target_line = LINE_NONE;
}

/* All that was decided is done: at an end nobody will ask about, the line is closed. */
static inline void target_settles(struct world *w)
{
    bool awaited = w->lingers && w->target != TARGET_EMPTY;
    if (!w->target_todo && handover_ended((enum handover_state)w->target) && !awaited)
        target_leaves_line(w);
}

static inline void target_feed(struct model *m, struct world *w, enum handover_event event)
{
    struct handover_step step = decide(m, w->target, event);
    bool again = w->target != TARGET_LOADING && step.state == TARGET_LOADING;
    w->target = (uint8_t)step.state;
    w->target_todo = (uint16_t)step.actions;
    if (again)
        w->target_key++;
    target_settles(w);
}

static inline bool rehearses(const struct model *m, uint8_t key)
{
    return m->rehearsal && key < ATTEMPTS;
}

static inline bool source_can_go_on(const struct world *w)
{
    return w->source_is == ALIVE && !w->target_ran;
}

static inline bool target_can_go_on(const struct world *w)
{
    bool holds = w->target == TARGET_PREPARED || w->target == TARGET_STARTING || w->target == TARGET_UNRESOLVED ||
                 w->target == TARGET_RUNS;
    return w->target_is == ALIVE && w->target_has && !(w->stale >> w->copy & 1) && holds;
}

static inline void target_starts(struct model *m, struct world *w, bool well)
{
    w->target_todo = 0;
    if (!well) {
        w->lost |= !source_can_go_on(w); /* nobody else has it, and it does not start */
        target_feed(m, w, HANDOVER_START_FAILED);
        return;
    }
    if (!w->target_has)
        broken(m, "the destination starts, and has no guest");
    if (w->stale >> w->copy & 1)
        broken(m, "the destination starts a guest that was taken back");
    w->disk = TARGET;
    w->target_runs = w->target_ran = 1;
    target_feed(m, w, HANDOVER_STARTED);
}

static inline void target_acts(struct model *m, struct world *w)
{
    unsigned action = (unsigned)w->target_todo & -(unsigned)w->target_todo;
    w->target_todo &= (uint16_t)~action;
    switch (action) {
    case DO_UNLOAD: w->target_has = 0; break;
    case DO_SEND_PREPARED: target_says(m, w, WORD_PREPARED); break;
    case DO_SEND_RUNNING: target_says(m, w, WORD_RUNNING); break;
    case DO_SEND_REFUSED: target_says(m, w, WORD_REFUSED); break;
    case DO_SEND_ERROR: target_says(m, w, WORD_ERROR); break;
    case DO_WRITE_REFUSED:         /* a person reads it */
    case DO_SEND_RETRACTED: break; /* ends a wait that has a limit, and nothing else */
    default: broken(m, "the destination is to do what only a source can"); break;
    }
    target_settles(w);
}

/* --- words arrive ----------------------------------------------------------------------------------------------- */

static inline void target_is_asked(struct model *m, struct world *w, uint8_t line, uint8_t key)
{
    bool holds = w->target == TARGET_PREPARED || w->target == TARGET_UNRESOLVED ||
                 (w->lingers && (w->target == TARGET_RUNS || w->target == TARGET_REFUSED));
    bool known = key == w->target_key || m->flaw == FLAW_KEYS;
    if (w->target_key == NO_KEY || !holds || !known)
        clear_words(w, line, 1 << WORD_RETRACT); /* nobody listens to the rest */
    if (w->target_key == NO_KEY || (holds && !known)) {
        put_word(w, line, key, WORD_ERROR);
    } else if (!holds) {
        w->ask_up &= (uint8_t) ~(1 << (line - LINE_ASK)); /* nobody listens any more */
    } else {
        target_leaves_line(w);
        target_feed(m, w, HANDOVER_LINK_LOST);
        w->target_line = line;
        target_feed(m, w, HANDOVER_ASK);
    }
}

static inline void target_hears(struct model *m, struct world *w, enum word word, uint8_t key)
{
    if (key != w->target_key && m->flaw != FLAW_KEYS) {
        m->stale_words++;
        return;
    }
    if (word == WORD_EOF && w->target == TARGET_LOADING && w->target_key != NO_KEY) {
        w->target_has = 1;
        w->copy = key;
        target_feed(m, w, rehearses(m, key) ? HANDOVER_REHEARSED : HANDOVER_LOADED);
    } else if (word == WORD_GO) {
        target_feed(m, w, HANDOVER_GO);
    } else if (word == WORD_RETRACT) {
        target_feed(m, w, HANDOVER_RETRACT);
    } else if (word == WORD_DONE && handover_ended((enum handover_state)w->target)) {
        w->lingers = 0;
        target_settles(w);
    }
}

/* The answer to a question, or to GO, over a new line. */
static inline void source_is_answered(struct model *m, struct world *w, enum word word)
{
    bool again = word == WORD_PREPARED && w->source == SOURCE_UNRESOLVED;
    if (word != WORD_ERROR)
        w->first_up = 0; /* the peer has left it too */
    w->ask_over = !again;
    switch (word) {
    case WORD_PREPARED:
        source_feed(m, w, again || m->flaw == FLAW_ANSWER ? HANDOVER_PREPARED : HANDOVER_LINK_LOST);
        break;
    case WORD_RUNNING: source_feed(m, w, HANDOVER_RUNNING); break;
    case WORD_REFUSED: source_feed(m, w, HANDOVER_REFUSED); break;
    default: source_feed(m, w, HANDOVER_LINK_LOST); break;
    }
}

static inline void source_hears(struct model *m, struct world *w, enum word word, uint8_t key)
{
    if (key != w->source_key && m->flaw != FLAW_KEYS) {
        m->stale_words++;
        return;
    }
    bool waits = w->source == SOURCE_RELEASED || w->source == SOURCE_UNRESOLVED;
    if (word == WORD_PREPARED && w->source == SOURCE_ASKED)
        source_feed(m, w, rehearses(m, key) ? HANDOVER_REHEARSED : HANDOVER_PREPARED);
    else if (word == WORD_RUNNING && waits)
        source_feed(m, w, HANDOVER_RUNNING);
    else if (word == WORD_REFUSED && waits)
        source_feed(m, w, HANDOVER_REFUSED);
    else if (word == WORD_ERROR)
        source_feed(m, w, HANDOVER_PEER_ERROR);
}
