/* Everything that can happen in a hand-over, by breadth-first search over the real table: the worlds of handover_world.h,
 * the moves of handover_moves.h, and the promises that must hold in each world, and at the end of each way that nothing
 * disturbs any more. */
#include "tests/unit/test.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/migration/handover_moves.h"

enum { WORLDS_MAX = 1 << 21, STEPS_MAX = 1 << 23 };

struct search {
    struct model model;
    struct world *world; /* all that were reached, in order */
    uint32_t *cell;      /* index + 1, by hash */
    uint32_t *from;      /* the world it was reached from: the story of a failure */
    uint32_t *step;      /* how each world goes on when nothing goes wrong: steps[first[i] .. first[i + 1]) */
    uint32_t *first_step;
    unsigned count, done, steps, culprit;
    unsigned found[KINDS][64], founds[KINDS]; /* of the world at hand */
    bool overflow;
    struct {
        bool moved, refused, again, overrun, cold, rehearsed;
    } saw;
};

/* --- the promises, in every world -------------------------------------------------------------------------------- */

static bool held_somewhere(const struct model *m, const struct world *w)
{
    bool given = w->source == SOURCE_AWAY && !m->blind;
    return (source_can_go_on(w) && !given) || target_can_go_on(w);
}

static void check(struct model *m, const struct world *w)
{
    if (w->source_runs && w->target_runs)
        broken(m, "both sides run the guest");
    if ((w->source_runs && w->disk != SOURCE) || (w->target_runs && w->disk != TARGET))
        broken(m, "a side runs that does not hold the disk");
    if (!w->lost && !held_somewhere(m, w))
        broken(m, "the guest is lost, and no process that alone held it was killed");
    if (w->target_runs && (!w->target_has || w->stale >> w->copy & 1))
        broken(m, "the destination runs a guest that it does not have, or that was taken back");
    if (w->target_runs && w->target != TARGET_RUNS)
        broken(m, "the destination runs, and does not know");
    bool as_guest = w->target == TARGET_PREPARED || w->target == TARGET_STARTING || w->target == TARGET_UNRESOLVED ||
                    w->target == TARGET_RUNS || w->target == TARGET_REFUSED;
    if (rehearses(m, w->target_key) && as_guest)
        broken(m, "what was only rehearsed is held as a guest");
    if (w->source_is != ALIVE)
        return;
    if (rehearses(m, w->source_key) && (w->written || w->disk == NOBODY))
        broken(m, "a rehearsal lets the guest go");
    if (w->source_runs && w->source != SOURCE_MOVING && w->source != SOURCE_HERE)
        broken(m, "the source runs where it may not");
    if (w->source_runs && w->written)
        broken(m, "the source runs while RELEASED is written down");
    if (w->source_runs && w->target_ran)
        broken(m, "the source runs on from what is past");
    if (w->source == SOURCE_HERE && !w->source_todo && !w->source_runs)
        broken(m, "the guest is here and does not run");
}

/* Where a way may end that nothing disturbs any more. */
static bool good_end(const struct world *w)
{
    bool source_alone = w->source_is == ALIVE && w->source == SOURCE_HERE && w->source_runs && !w->written;
    bool source_rests = w->source_is != ALIVE || (w->source == SOURCE_AWAY && !w->source_runs && !w->written);
    bool target_rests =
        w->target_is == DEAD || w->target_key == NO_KEY || w->target == TARGET_EMPTY || w->target == TARGET_REFUSED;
    if (w->target_runs)
        return source_rests;
    return target_rests && (source_alone || (w->lost && source_rests));
}

/* --- the search -------------------------------------------------------------------------------------------------- */

static unsigned number_of(struct search *s, const struct world *w)
{
    uint64_t hash = 1469598103934665603u, part;
    for (size_t i = 0; i + sizeof(part) <= sizeof(*w); i += sizeof(part)) {
        memcpy(&part, (const uint8_t *)w + i, sizeof(part));
        hash = (hash ^ part) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
    }
    for (uint32_t at = (uint32_t)hash;; at++) {
        uint32_t *cell = &s->cell[at % (2u * WORLDS_MAX)];
        if (*cell && memcmp(&s->world[*cell - 1], w, sizeof(*w)) == 0)
            return *cell - 1;
        if (*cell)
            continue;
        if (s->count == WORLDS_MAX) {
            s->overflow = true;
            return 0;
        }
        s->world[s->count] = *w;
        s->from[s->count] = s->done ? s->done - 1 : 0;
        *cell = ++s->count;
        check(&s->model, w);
        if (s->model.broken && !s->culprit)
            s->culprit = s->count;
        return s->count - 1;
    }
}

static void reach(void *opaque, enum kind kind, const struct world *next)
{
    struct search *s = opaque;
    unsigned number = number_of(s, next);
    if (kind != FAULT && number != s->done - 1) {
        assert(s->founds[kind] < 64);
        s->found[kind][s->founds[kind]++] = number;
    }
    s->saw.moved |= next->target_runs;
    s->saw.refused |= next->target == TARGET_REFUSED;
    s->saw.again |= next->source_key >= ATTEMPTS && next->target_runs;
    s->saw.overrun |= next->source_key % ATTEMPTS == 1 && next->target_runs;
    s->saw.cold |= next->source_is == COLD;
    s->saw.rehearsed |= next->target == TARGET_REHEARSED;
}

/* A source that lives and is not in doubt knows, and its destination is told without a person. */
static void check_person(struct search *s, const struct world *w)
{
    bool knows = w->source_is == ALIVE && w->source == SOURCE_HERE;
    if (!s->model.blind && knows && w->target_is == ALIVE && w->target == TARGET_UNRESOLVED && s->founds[PERSON]) {
        broken(&s->model, "a person must tell a destination what its source knows");
        s->culprit = s->done;
    }
}

static void keep_steps(struct search *s)
{
    enum kind kind = s->founds[FLOW] ? FLOW : s->founds[TIME] ? TIME : PERSON;
    if (kind == PERSON)
        check_person(s, &s->world[s->done - 1]);
    s->first_step[s->done - 1] = s->steps;
    for (unsigned i = 0; i < s->founds[kind] && s->steps < STEPS_MAX; i++)
        s->step[s->steps++] = s->found[kind][i];
    s->first_step[s->done] = s->steps;
    s->overflow |= s->steps == STEPS_MAX;
}

/* --- every undisturbed way ends, and ends well -------------------------------------------------------------------- */

static void check_ends(struct search *s)
{
    uint8_t *seen = calloc(s->count, 1); /* 1 on the way, 2 done */
    uint32_t *way = malloc(s->count * sizeof(*way)), *next = malloc(s->count * sizeof(*next));
    assert_true(seen && way && next);
    for (unsigned from = 0; from < s->count && !s->model.broken; from++) {
        if (seen[from])
            continue;
        unsigned depth = 0;
        way[depth] = from;
        next[depth++] = s->first_step[from];
        seen[from] = 1;
        while (depth && !s->model.broken) {
            unsigned at = way[depth - 1];
            if (s->first_step[at] == s->first_step[at + 1] && !good_end(&s->world[at])) {
                broken(&s->model, "nothing more happens, and it did not end well");
            } else if (next[depth - 1] == s->first_step[at + 1]) {
                seen[at] = 2;
                depth--;
                continue;
            } else {
                unsigned to = s->step[next[depth - 1]++];
                if (seen[to] == 1)
                    broken(&s->model, "the two go in circles for ever");
                if (seen[to] == 0) {
                    seen[to] = 1;
                    way[depth] = to;
                    next[depth++] = s->first_step[to];
                }
            }
            if (s->model.broken)
                s->culprit = at + 1;
        }
    }
    free(seen);
    free(way);
    free(next);
}

/* --- telling ------------------------------------------------------------------------------------------------------ */

static void tell(const struct world *w)
{
    static const char *const life[] = { "", " DEAD", " COLD" };
    print_message(
        "  %s.%d%s%s todo %x line %d%s | %s.%d%s%s%s todo %x line %d | up %d%x words %llx %x %x disk %d note %d "
        "stale %x lost %d\n",
        handover_state_name((enum handover_state)w->source), w->source_key, w->source_runs ? " runs" : "",
        life[w->source_is], w->source_todo, w->source_line, w->ask_over ? " over" : "",
        handover_state_name((enum handover_state)w->target), w->target_key, w->target_has ? " holds" : "",
        w->target_runs ? " runs" : "", life[w->target_is], w->target_todo, w->target_line, w->first_up, w->ask_up,
        (unsigned long long)w->first, w->ask[0], w->ask[1], w->disk, w->written, w->stale, w->lost);
}

static void tell_story(const struct search *s)
{
    if (s->culprit)
        for (unsigned at = s->culprit - 1;; at = s->from[at]) {
            tell(&s->world[at]);
            if (at == 0)
                break;
        }
    print_message("after %u states: %s\n", s->count, s->model.broken);
}

/* True: every promise held. */
static bool explore(struct search *s, const struct model *model, bool aloud)
{
    memset(s, 0, sizeof(*s));
    s->model = *model;
    s->world = malloc(sizeof(*s->world) * WORLDS_MAX);
    s->from = malloc(sizeof(*s->from) * WORLDS_MAX);
    s->cell = calloc(2 * WORLDS_MAX, sizeof(*s->cell));
    s->step = malloc(sizeof(*s->step) * STEPS_MAX);
    s->first_step = malloc(sizeof(*s->first_step) * (WORLDS_MAX + 1));
    assert_true(s->world && s->from && s->cell && s->step && s->first_step);

    struct world first;
    memset(&first, 0, sizeof(first));
    first.source = SOURCE_MOVING;
    first.target = TARGET_LOADING;
    first.source_runs = first.first_up = first.lingers = 1;
    first.disk = SOURCE;
    first.asked = NO_KEY;
    number_of(s, &first);
    struct moves moves = { &s->model, reach, s };
    while (s->done < s->count && !s->model.broken && !s->overflow) {
        struct world w = s->world[s->done++];
        memset(s->founds, 0, sizeof(s->founds));
        all_moves(&moves, &w);
        keep_steps(s);
    }
    if (!s->model.broken && !s->overflow)
        check_ends(s);
    if (s->model.broken && aloud)
        tell_story(s);
    free(s->world);
    free(s->from);
    free(s->cell);
    free(s->step);
    free(s->first_step);
    return !s->model.broken && !s->overflow;
}

/* --- tests --------------------------------------------------------------------------------------------------------- */

static struct search answering, blind, rehearsed; /* of the real table */

static void no_order_of_events_breaks_a_promise(void **state)
{
    (void)state;
    explore(&answering, &(struct model){ 0 }, true);
    assert_null(answering.model.broken);
    assert_false(answering.overflow); /* or it was not every order */
    assert_true(answering.saw.moved && answering.saw.refused && answering.saw.overrun);
    assert_true(answering.saw.again && answering.saw.cold);
    assert_true(answering.model.stale_words > 0);
    print_message("%u states, %u steps of what is undisturbed, %lu words of another attempt ignored\n", answering.count,
                  answering.steps, answering.model.stale_words);
}

static void nor_towards_a_peer_that_cannot_answer(void **state)
{
    (void)state;
    explore(&blind, &(struct model){ .blind = true }, true);
    assert_null(blind.model.broken);
    assert_false(blind.overflow);
    assert_true(blind.saw.moved && blind.saw.refused);
    print_message("%u states, %u steps of what is undisturbed\n", blind.count, blind.steps);
}

/* A copy never runs, and is dropped; the guest runs on; and a migration that follows finds nothing of it in its way. */
static void nor_does_a_rehearsal_and_the_migration_after_it(void **state)
{
    (void)state;
    explore(&rehearsed, &(struct model){ .rehearsal = true }, true);
    assert_null(rehearsed.model.broken);
    assert_false(rehearsed.overflow);
    assert_true(rehearsed.saw.rehearsed && rehearsed.saw.again);
    print_message("%u states, %u steps of what is undisturbed\n", rehearsed.count, rehearsed.steps);
}

/* What nothing walks over proves nothing. */
static void every_row_of_the_table_was_met(void **state)
{
    (void)state;
    for (int at = 0; at < HANDOVER_STATES; at++)
        for (int event = 0; event < HANDOVER_EVENTS; event++) {
            struct handover_step step = handover_step((enum handover_state)at, (enum handover_event)event);
            bool row = (int)step.state != at || step.actions;
            bool file = event == HANDOVER_STORED; /* nobody is at the other end */
            if (row && !file && !answering.model.met[at][event] && !blind.model.met[at][event] &&
                !rehearsed.model.met[at][event])
                fail_msg("%s, %s: never met", handover_state_name((enum handover_state)at),
                         handover_event_name((enum handover_event)event));
        }
}

static void assert_found(const struct model *model, const char *why)
{
    static struct search s;
    bool held = explore(&s, model, false);
    if (held)
        print_message("not found in %u states: %s\n", s.count, why);
    assert_false(held);
    assert_non_null(s.model.broken);
    assert_string_equal(s.model.broken, why);
}

static const char old[] = "the destination starts a guest that was taken back",
                  note[] = "the source runs while RELEASED is written down",
                  gone[] = "the guest is lost, and no process that alone held it was killed",
                  circles[] = "the two go in circles for ever",
                  person[] = "a person must tell a destination what its source knows",
                  bad[] = "nothing more happens, and it did not end well";

static void mistakes_outside_of_the_table_are_found(void **state)
{
    (void)state;
    static const struct {
        enum flaw flaw;
        const char *why;
    } planted[] = {
        { FLAW_KEYS, person },        { FLAW_HASTY, old }, { FLAW_HASTY_TARGET, old }, { FLAW_LATE_FORGET, note },
        { FLAW_EARLY_RETRACT, gone }, { FLAW_NOTE, bad },  { FLAW_ANSWER, bad },       { FLAW_MUTE, person },
    };
    for (size_t i = 0; i < sizeof(planted) / sizeof(planted[0]); i++)
        assert_found(&(struct model){ .once = planted[i].flaw >= FLAW_LATE_FORGET, .flaw = planted[i].flaw },
                     planted[i].why);
}

static const struct {
    enum handover_state at;
    enum handover_event event;
    struct handover_step instead;
    const char *why;
} wrong_rows[] = {
    { SOURCE_ASKED,
      HANDOVER_PREPARED,
      { SOURCE_RELEASED, DO_SEND_GO },
      "GO is said, and RELEASED was not written down" },
    { SOURCE_ASKED, HANDOVER_CANCEL, { SOURCE_HERE, DO_SEND_RETRACT }, "the guest is here and does not run" },
    { SOURCE_ASKED,
      HANDOVER_OVERRUN,
      { SOURCE_ASKED, DO_SEND_RETRACT | DO_RESUME },
      "the source runs where it may not" },
    { SOURCE_RELEASING, HANDOVER_WRITE_FAILED, { SOURCE_HERE, DO_SEND_RETRACT | DO_RESUME }, note },
    { SOURCE_RELEASED, HANDOVER_SILENCE, { SOURCE_HERE, DO_FORGET_RELEASED | DO_RESUME }, old },
    { SOURCE_RELEASED, HANDOVER_LINK_LOST, { SOURCE_HERE, DO_FORGET_RELEASED | DO_SEND_RETRACT | DO_RESUME }, old },
    { SOURCE_RELEASED, HANDOVER_CANCEL, { SOURCE_HERE, DO_FORGET_RELEASED | DO_SEND_RETRACT | DO_RESUME }, old },
    { SOURCE_RELEASED, HANDOVER_REFUSED, { SOURCE_HERE, DO_RESUME }, note },
    { SOURCE_RELEASED, HANDOVER_LINK_LOST, { SOURCE_AWAY, DO_FORGET_RELEASED }, gone },
    { SOURCE_UNRESOLVED, HANDOVER_RUNNING, { SOURCE_UNRESOLVED, 0 }, circles },
    { TARGET_PREPARED, HANDOVER_LINK_LOST, { TARGET_EMPTY, DO_UNLOAD }, gone },
    { TARGET_PREPARED, HANDOVER_SILENCE, { TARGET_STARTING, DO_START }, old },
    { TARGET_UNRESOLVED, HANDOVER_GO, { TARGET_UNRESOLVED, 0 }, circles },
    { TARGET_REFUSED, HANDOVER_GO, { TARGET_STARTING, DO_START }, "the destination starts, and has no guest" },
    { TARGET_RUNS, HANDOVER_ASK, { TARGET_RUNS, 0 }, circles },
    { SOURCE_ASKED, HANDOVER_REHEARSED, { SOURCE_RELEASING, DO_WRITE_RELEASED }, "a rehearsal lets the guest go" },
    { SOURCE_ASKED, HANDOVER_REHEARSED, { SOURCE_HERE, DO_SEND_RETRACT }, "the guest is here and does not run" },
    { TARGET_LOADING,
      HANDOVER_REHEARSED,
      { TARGET_PREPARED, DO_SEND_PREPARED },
      "what was only rehearsed is held as a guest" },
    { TARGET_REHEARSED, HANDOVER_LINK_LOST, { TARGET_UNRESOLVED, 0 }, "what was only rehearsed is held as a guest" },
};

static void a_row_that_is_wrong_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(wrong_rows) / sizeof(wrong_rows[0]); i++)
        assert_found(&(struct model){ .once = wrong_rows[i].event != HANDOVER_OVERRUN,
                                      .rehearsal = wrong_rows[i].event == HANDOVER_REHEARSED ||
                                                   wrong_rows[i].at == TARGET_REHEARSED,
                                      .flaw = FLAW_ROW,
                                      .state = wrong_rows[i].at,
                                      .event = wrong_rows[i].event,
                                      .instead = wrong_rows[i].instead },
                     wrong_rows[i].why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_order_of_events_breaks_a_promise),
        cmocka_unit_test(nor_towards_a_peer_that_cannot_answer),
        cmocka_unit_test(nor_does_a_rehearsal_and_the_migration_after_it),
        cmocka_unit_test(every_row_of_the_table_was_met),
        cmocka_unit_test(mistakes_outside_of_the_table_are_found),
        cmocka_unit_test(a_row_that_is_wrong_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
