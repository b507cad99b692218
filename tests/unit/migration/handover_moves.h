/* What may happen to a world of handover_world.h next: the two ends go on, words arrive, are lost, come twice or late,
 * lines break, time passes, users cancel, operators speak, processes die and are started again. */
#pragma once
#include "tests/unit/migration/handover_world.h"

/* What is left of a world when nothing goes wrong any more: FLOW, as long as there is some; then TIME; then PERSON. */
enum kind { FLOW, TIME, PERSON, FAULT, KINDS };

/* Told of each next world; `opaque` is the search's. */
struct moves {
    struct model *model;
    void (*reach)(void *opaque, enum kind kind, const struct world *next);
    void *opaque;
};

static inline void emit(struct moves *to, enum kind kind, const struct world *next)
{
    to->reach(to->opaque, kind, next);
}

static inline void source_event(struct moves *to, enum kind kind, const struct world *w, enum handover_event event)
{
    struct world next = *w;
    source_feed(to->model, &next, event);
    emit(to, kind, &next);
}

static inline void target_event(struct moves *to, enum kind kind, const struct world *w, enum handover_event event)
{
    struct world next = *w;
    target_feed(to->model, &next, event);
    emit(to, kind, &next);
}

static inline bool source_reads(const struct world *w, uint8_t line)
{
    return w->source_is == ALIVE && !w->source_todo && w->source_line == line &&
           !handover_ended((enum handover_state)w->source);
}

/* In outgoing_in_doubt(), between two questions: only an answer, an operator and the next question count. */
static inline bool source_doubts(const struct world *w)
{
    return w->doubted && w->source_line == LINE_FIRST;
}

static inline bool target_reads(const struct world *w, uint8_t line)
{
    return w->target_is == ALIVE && !w->target_todo && w->target_line == line;
}

/* --- lines -------------------------------------------------------------------------------------------------- */

/* False: nobody can take it now. */
static inline bool deliver(struct moves *to, struct world *w, uint8_t line, enum word word, uint8_t key)
{
    bool for_source = 1 << word & TO_SOURCE, knocks = word == WORD_RESUME;
    if (for_source && source_reads(w, line)) {
        if (line == LINE_FIRST)
            source_hears(to->model, w, word, key);
        else
            source_is_answered(to->model, w, word);
        return true;
    }
    bool polled = w->target_is == ALIVE && !w->target_todo && w->target != TARGET_STARTING &&
                  (w->target != TARGET_LOADING || w->target_key == NO_KEY);
    if (knocks && polled) {
        target_is_asked(to->model, w, line, key);
        return true;
    }
    if (!for_source && !knocks && target_reads(w, line)) {
        target_hears(to->model, w, word, key);
        return true;
    }
    return false;
}

/* One word of one line: it arrives; arrives and comes once more; is lost. */
static inline void word_moves(struct moves *to, const struct world *w, uint8_t line, enum word word, uint8_t key)
{
    struct world taken = *w;
    if (line == LINE_FIRST)
        taken.first &= ~first_bit(key, word);
    else
        taken.ask[line - LINE_ASK] &= (uint16_t) ~(1 << word);
    struct world next = taken;
    if (deliver(to, &next, line, word, key)) {
        emit(to, FLOW, &next);
        next = *w;
        deliver(to, &next, line, word, key);
        emit(to, FAULT, &next);
    }
    if (word == WORD_RESUME)
        clear_words(&taken, line, 1 << WORD_RETRACT); /* right behind it: nobody listens to the rest */
    emit(to, FAULT, &taken);

    if (word != WORD_PREPARED || !source_reads(w, line) || key != w->source_key)
        return;
    if (line == LINE_FIRST && w->source == SOURCE_ASKED)
        source_event(to, FAULT, &taken, HANDOVER_PREPARED_MISMATCH);
    /* An operator, who looked there, was quicker than GO. */
    bool waits = w->target == TARGET_PREPARED || w->target == TARGET_UNRESOLVED;
    if (line != LINE_FIRST && w->source == SOURCE_UNRESOLVED && waits) {
        taken.first_up = 0;
        taken.ask_over = 1;
        source_event(to, FAULT, &taken, HANDOVER_RESOLVE_HERE);
    }
}

/* A reader whose line has gone notices some time, with or without having read what was left on it. */
static inline void notice_moves(struct moves *to, const struct world *w)
{
    if (w->source_line < LINE_NONE && source_reads(w, w->source_line) && !line_is_up(w, w->source_line)) {
        struct world next = *w;
        clear_words(&next, w->source_line, TO_SOURCE);
        next.ask_over = w->source_line != LINE_FIRST;
        if (!source_doubts(w))
            source_event(to, FLOW, &next, HANDOVER_LINK_LOST);
    }
    bool waits = w->target != TARGET_PREPARED || !to->model->blind;
    if (w->target_line < LINE_NONE && target_reads(w, w->target_line) && !line_is_up(w, w->target_line) && waits) {
        struct world next = *w;
        clear_words(&next, w->target_line, TO_TARGET);
        next.target_line = LINE_NONE;
        target_event(to, FLOW, &next, HANDOVER_LINK_LOST);
    }
}

static inline void line_moves(struct moves *to, const struct world *w)
{
    for (uint8_t key = 0; key < KEYS; key++)
        for (int word = 0; word < WORDS; word++)
            if (w->first & first_bit(key, (enum word)word))
                word_moves(to, w, LINE_FIRST, (enum word)word, key);
    for (uint8_t ask = 0; ask < ASKS; ask++)
        for (int word = 0; word < WORDS; word++)
            if (w->ask[ask] >> word & 1)
                word_moves(to, w, LINE_ASK + ask, (enum word)word, w->ask_key[ask]);
    struct world next = *w;
    next.first_up = 0;
    if (w->first_up)
        emit(to, FAULT, &next);
    for (uint8_t ask = 0; ask < ASKS; ask++) {
        next = *w;
        next.ask_up &= (uint8_t) ~(1 << ask);
        if (w->ask_up >> ask & 1)
            emit(to, FAULT, &next);
    }
    notice_moves(to, w);
}

/* --- the source ------------------------------------------------------------------------------------------------ */

static inline void asking_moves(struct moves *to, const struct world *w)
{
    if (w->source != SOURCE_UNRESOLVED || w->source_line != LINE_FIRST || w->target_is != ALIVE || to->model->blind)
        return;
    bool helps = w->target_key == w->source_key && w->target != TARGET_LOADING && w->target != TARGET_EMPTY &&
                 (w->lingers || !handover_ended((enum handover_state)w->target));
    for (uint8_t ask = 0; ask < ASKS; ask++) {
        if (w->ask[ask] || w->target_line == LINE_ASK + ask)
            continue;
        struct world next = *w;
        next.ask_up |= (uint8_t)(1 << ask);
        next.ask_key[ask] = w->source_key;
        next.source_line = LINE_ASK + ask;
        put_word(&next, next.source_line, w->source_key, WORD_RESUME);
        emit(to, helps ? FLOW : FAULT, &next);
        return;
    }
}

/* outgoing_recall(): the guest is here again, and who may still hold its copy is told over a new line. It is done when
 * RETRACT was heard, lost, or nobody comes to hear it: LINK_LOST in source_trouble() closes the line then. */
static inline void recall_moves(struct moves *to, const struct world *w)
{
    if (w->source != SOURCE_HERE || w->source_line != LINE_FIRST || w->target_is != ALIVE || to->model->blind)
        return;
    bool holds = w->target == TARGET_PREPARED || w->target == TARGET_UNRESOLVED;
    uint8_t key = w->asked, ask = ASKS - 1; /* one line is enough to come again and again */
    if (key == NO_KEY || w->ask[ask] || w->target_line == LINE_ASK + ask)
        return;
    struct world next = *w;
    next.ask_up |= (uint8_t)(1 << ask);
    next.ask_key[ask] = key;
    next.source_line = LINE_ASK + ask;
    put_word(&next, next.source_line, key, WORD_RESUME);
    put_word(&next, next.source_line, key, WORD_RETRACT);
    emit(to, holds && w->target_key == key && to->model->flaw != FLAW_MUTE ? FLOW : FAULT, &next);
}

static inline void source_progress(struct moves *to, const struct world *w)
{
    struct model *m = to->model;
    struct world next = *w;
    /* A round was loaded there in this attempt, so RETRACT was heard. */
    bool loaded = w->source_key % ATTEMPTS == 0 || w->target_is != ALIVE || w->target_key != w->source_key - 1;
    if (w->source == SOURCE_MOVING && loaded) {
        next.source_runs = 0;
        source_event(to, FLOW, &next, HANDOVER_STOPPED);
    }
    if (w->source == SOURCE_STOPPED && m->blind) {
        next.stale &= (uint8_t) ~(1 << w->source_key);
        source_event(to, FLOW, &next, HANDOVER_UNANSWERED);
    } else if (w->source == SOURCE_STOPPED) {
        next.stale &= (uint8_t) ~(1 << w->source_key);
        put_word(&next, LINE_FIRST, w->source_key, WORD_EOF);
        next.asked = w->source_key;
        source_event(to, FLOW, &next, HANDOVER_SENT);
    }
    if (w->source == SOURCE_RELEASED && m->blind && w->first_up)
        source_event(to, FLOW, w, HANDOVER_TAKEN);
    asking_moves(to, w);
    recall_moves(to, w);
}

static inline void source_trouble(struct moves *to, const struct world *w)
{
    bool rounds = w->source == SOURCE_MOVING || w->source == SOURCE_STOPPED || w->source == SOURCE_ASKED;
    source_event(to, FAULT, w, HANDOVER_CANCEL);
    if (w->source == SOURCE_ASKED || (w->source == SOURCE_RELEASED && w->source_line == LINE_FIRST))
        source_event(to, FAULT, w, HANDOVER_PEER_ERROR); /* what came is no message */
    if (w->source == SOURCE_STOPPED ||
        (w->source == SOURCE_ASKED && w->source_key % ATTEMPTS == 0 && !to->model->once)) {
        struct world next = *w; /* the pause overruns */
        source_feed(to->model, &next, HANDOVER_OVERRUN);
        if (w->source == SOURCE_ASKED)
            next.source_todo |= DO_NEXT_ATTEMPT;
        emit(to, FAULT, &next);
    }
    if (w->source_line != LINE_FIRST) {
        struct world next = *w;
        next.ask_over = 1;
        source_event(to, TIME, &next, HANDOVER_LINK_LOST);
    } else if (rounds || (w->source == SOURCE_RELEASED && !source_doubts(w))) {
        source_event(to, TIME, w, HANDOVER_SILENCE);
    }
}

static inline bool target_will_not_start(const struct world *w)
{
    bool free = w->target_key == NO_KEY || w->target == TARGET_EMPTY || w->target == TARGET_REFUSED;
    return !w->target_ran && (w->target_is == DEAD || (free && !w->target_has && !w->target_todo));
}

/* "First it must be dropped, or dead, there, and never have run; then it may be here." */
static inline void source_operator(struct moves *to, const struct world *w)
{
    bool hasty = to->model->flaw == FLAW_HASTY;
    if (w->source == SOURCE_UNRESOLVED && w->source_line == LINE_FIRST) {
        if (target_will_not_start(w) || hasty)
            source_event(to, PERSON, w, HANDOVER_RESOLVE_HERE);
        if (w->target_ran)
            source_event(to, PERSON, w, HANDOVER_RESOLVE_THERE);
    }
    /* Given away unasked, and it never ran there: `migrate_resolve here`, and `cont`. */
    if (to->model->blind && w->source == SOURCE_AWAY && target_will_not_start(w)) {
        struct world next = *w;
        next.source = SOURCE_HERE;
        source_resumes(to->model, &next);
        emit(to, PERSON, &next);
    }
}

/* A guest that came back moves once more, to a destination that waits for one. */
static inline void second_migration(struct moves *to, const struct world *w)
{
    bool fresh = w->target_is == ALIVE && w->target == TARGET_LOADING && w->target_key == NO_KEY;
    if (w->source != SOURCE_HERE || !w->source_runs || w->source_key >= ATTEMPTS || w->target_ran || !fresh ||
        to->model->once)
        return;
    struct world next = *w;
    if (w->source_line != LINE_FIRST) { /* a recall ends where another migration begins */
        next.ask_up &= (uint8_t) ~(1 << (w->source_line - LINE_ASK));
        clear_words(&next, w->source_line, TO_SOURCE);
    }
    next.source = SOURCE_MOVING;
    next.source_key = next.target_key = ATTEMPTS;
    next.source_line = next.target_line = LINE_FIRST;
    next.first_up = next.lingers = 1;
    emit(to, FAULT, &next);
}

static inline void kill_source(struct moves *to, const struct world *w)
{
    struct world next = *w;
    bool noted = w->target_ran || w->written == w->copy + 1; /* else nobody knows whether the source ran on */
    next.lost |= !(target_can_go_on(w) && noted);
    next.source_is = DEAD;
    next.source_runs = next.first_up = next.ask_up = next.ask_over = 0;
    next.source_todo = 0;
    next.source_line = LINE_NONE;
    for (uint8_t line = LINE_FIRST; line < LINE_NONE; line++)
        clear_words(&next, line, TO_SOURCE);
    if (w->disk == SOURCE)
        next.disk = NOBODY;
    emit(to, FAULT, &next);
}

/* Somebody starts the guest from its disk again, unless it is in use or a note says that it may be elsewhere. */
static inline void restart_source(struct moves *to, const struct world *w)
{
    bool noted = w->written && to->model->flaw != FLAW_NOTE;
    if (w->source_is != DEAD || noted || w->disk != NOBODY || to->model->blind)
        return;
    struct world next = *w;
    next.source_is = COLD;
    next.source_runs = 1;
    next.disk = SOURCE;
    emit(to, FAULT, &next);
}

static inline void source_moves(struct moves *to, const struct world *w)
{
    if (w->source_is != ALIVE) {
        restart_source(to, w);
        return;
    }
    kill_source(to, w);
    if (w->source_todo & DO_WRITE_RELEASED) {
        struct world next = *w;
        source_writes(to->model, &next, true);
        emit(to, FLOW, &next);
        next = *w;
        source_writes(to->model, &next, false);
        emit(to, FAULT, &next);
    } else if (w->source_todo) {
        struct world next = *w;
        source_acts(to->model, &next);
        emit(to, FLOW, &next);
    } else {
        source_progress(to, w);
        source_trouble(to, w);
        source_operator(to, w);
        second_migration(to, w);
    }
}

/* --- the destination ------------------------------------------------------------------------------------------- */

static inline void target_trouble(struct moves *to, const struct world *w)
{
    if (w->target == TARGET_LOADING && w->target_key != NO_KEY) {
        target_event(to, FAULT, w, HANDOVER_LOAD_FAILED);
        target_event(to, FAULT, w, HANDOVER_CANCEL);
        target_event(to, FAULT, w, HANDOVER_PEER_ERROR);
    }
    bool prepared = w->target == TARGET_PREPARED && !to->model->blind;
    if (w->target == TARGET_REHEARSED)
        target_event(to, FAULT, w, HANDOVER_CANCEL);
    if (prepared || w->target == TARGET_REHEARSED) {
        target_event(to, FAULT, w, HANDOVER_PEER_ERROR);
        target_event(to, TIME, w, HANDOVER_SILENCE);
    }
    bool ended = handover_ended((enum handover_state)w->target);
    if (ended && w->lingers) { /* ten minutes have passed */
        struct world next = *w;
        next.lingers = 0;
        target_settles(&next);
        emit(to, FAULT, &next);
    }
}

/* "Run it here only when the source cannot, or waits: alive and unresolved, or dead with RELEASED on its disk." */
static inline void target_operator(struct moves *to, const struct world *w)
{
    if (w->target != TARGET_UNRESOLVED)
        return;
    bool noted = w->written == w->copy + 1 || to->model->flaw == FLAW_HASTY_TARGET;
    bool waits = w->source_is == ALIVE && w->source == SOURCE_UNRESOLVED && w->source_key == w->copy;
    bool holds = w->source_is == ALIVE && !waits && w->source != SOURCE_RELEASED && w->source != SOURCE_AWAY;
    if (waits || (w->source_is == DEAD && noted))
        target_event(to, PERSON, w, HANDOVER_RESOLVE_HERE);
    if (holds || waits || (w->source_is != ALIVE && !noted))
        target_event(to, waits ? FAULT : PERSON, w, HANDOVER_RESOLVE_THERE);
}

static inline void kill_target(struct moves *to, const struct world *w)
{
    struct world next = *w;
    bool away = w->source == SOURCE_AWAY && !to->model->blind;
    next.lost |= !source_can_go_on(w) || away;
    next.target_is = DEAD;
    next.target_runs = next.target_has = next.first_up = next.ask_up = 0;
    next.target_todo = 0;
    next.target_line = LINE_NONE;
    for (uint8_t line = LINE_FIRST; line < LINE_NONE; line++)
        clear_words(&next, line, TO_TARGET);
    if (w->disk == TARGET)
        next.disk = NOBODY;
    emit(to, FAULT, &next);
}

/* After its death, or once its last guest has gone another way: it waits for a hello. */
static inline void listen_again(struct moves *to, const struct world *w)
{
    bool gone = w->target == TARGET_EMPTY || w->target == TARGET_REFUSED;
    if (w->target_is == ALIVE && (!gone || w->target_todo))
        return;
    struct world next = *w;
    target_leaves_line(&next);
    next.target_is = ALIVE;
    next.target = TARGET_LOADING;
    next.target_key = NO_KEY;
    next.lingers = 0;
    emit(to, FAULT, &next);
}

static inline void target_moves(struct moves *to, const struct world *w)
{
    listen_again(to, w);
    if (w->target_is != ALIVE)
        return;
    kill_target(to, w);
    if (w->target_todo & DO_START) {
        bool locked = w->disk != NOBODY;
        struct world next = *w;
        target_starts(to->model, &next, false);
        emit(to, locked ? FLOW : FAULT, &next);
        next = *w;
        target_starts(to->model, &next, true);
        if (!locked)
            emit(to, FLOW, &next);
    } else if (w->target_todo) {
        struct world next = *w;
        target_acts(to->model, &next);
        emit(to, FLOW, &next);
    } else {
        if (to->model->blind && w->target == TARGET_PREPARED)
            target_event(to, FLOW, w, HANDOVER_GO);
        target_trouble(to, w);
        target_operator(to, w);
    }
}

static inline void all_moves(struct moves *to, const struct world *w)
{
    line_moves(to, w);
    source_moves(to, w);
    target_moves(to, w);
}
