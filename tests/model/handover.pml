/* The hand-over of src/migration/handover.c, for SPIN: a source, a destination, the lines between them, users, operators,
 * and FAULTS things that go wrong. The same model as tests/unit/migration/handover_world.h and handover_moves.h (what
 * each part stands for is said there), written a second time in another language and searched by another program.
 * `make model` runs it; tests/model/check says how.
 *
 * -DFAULTS=N   so many losses, doubles, cuts, deaths, restarts, cancels and failures, in any order, at any moment
 * -DENDLESS    no limit to them: then nothing ever has to end, and only the asserts count
 * -DBLIND      the destination cannot answer, and starts at the stream's last byte
 * -DREHEARSAL  the first of the two migrations is only rehearsed
 * -DPLANT_...  something is wrong on purpose, and must be found
 *
 * Beside the asserts: every run ends (compiled with -DNP the search looks for circles), and ends well, which the last option
 * of people() checks. SPIN's `timeout` is true when nothing else can happen: only then a wait is over without a fault. */

#ifndef FAULTS
#define FAULTS 3
#endif
#define ATTEMPTS 3 /* two, and one more that a destination may wait for after a RETRACT */
#define KEYS 6     /* of two migrations */
#define NO_KEY 15  /* a destination that waits for a hello */

mtype = { SOURCE_MOVING, SOURCE_STOPPED, SOURCE_ASKED, SOURCE_RELEASING, SOURCE_RELEASED, SOURCE_UNRESOLVED, SOURCE_AWAY,
          SOURCE_HERE, TARGET_LOADING, TARGET_PREPARED, TARGET_STARTING, TARGET_REHEARSED, TARGET_UNRESOLVED, TARGET_RUNS, TARGET_REFUSED,
          TARGET_EMPTY };
mtype = { HANDOVER_STOPPED, HANDOVER_OVERRUN, HANDOVER_SENT, HANDOVER_PREPARED, HANDOVER_PREPARED_MISMATCH,
          HANDOVER_WRITTEN, HANDOVER_WRITE_FAILED, HANDOVER_RUNNING, HANDOVER_REFUSED, HANDOVER_UNANSWERED,
          HANDOVER_TAKEN, HANDOVER_STORED, HANDOVER_LOADED, HANDOVER_LOAD_FAILED, HANDOVER_GO, HANDOVER_RETRACT,
          HANDOVER_STARTED, HANDOVER_START_FAILED, HANDOVER_ASK, HANDOVER_REHEARSED, HANDOVER_PEER_ERROR, HANDOVER_LINK_LOST,
          HANDOVER_SILENCE, HANDOVER_CANCEL, HANDOVER_RESOLVE_HERE, HANDOVER_RESOLVE_THERE };

/* Performed from the lowest bit up, one at a time: a process may die between two of them. */
#define DO_FORGET_RELEASED 1
#define DO_SEND_RETRACT 2
#define DO_RESUME 4
#define DO_WRITE_RELEASED 8
#define DO_SEND_GO 16
#define DO_UNLOAD 32
#define DO_SEND_PREPARED 64
#define DO_START 128
#define DO_SEND_RUNNING 256
#define DO_WRITE_REFUSED 512
#define DO_SEND_REFUSED 1024
#define DO_SEND_RETRACTED 2048
#define DO_SEND_ERROR 4096
#define DO_SEND_DONE 8192
#define DO_NEXT_ATTEMPT 16384 /* not in the table: after a RETRACT that the source goes on after */

/* Words, as bits. ERROR is REFUSAL on a new line. */
#define W_EOF 1
#define W_GO 2
#define W_RETRACT 4
#define W_DONE 8
#define W_RESUME 16
#define W_PREPARED 32
#define W_RUNNING 64
#define W_REFUSED 128
#define W_ERROR 256
#define TO_SOURCE (W_PREPARED | W_RUNNING | W_REFUSED | W_ERROR)
#define TO_TARGET (W_EOF | W_GO | W_RETRACT | W_DONE | W_RESUME)

/* Lines: the first, and two that the source may ask over. */
#define FIRST 0
#define NONE 3

#define ALIVE 0
#define DEAD 1
#define COLD 2
#define NOBODY 0
#define SOURCE 1
#define TARGET 2

mtype source = SOURCE_MOVING, target = TARGET_LOADING;
short source_todo, target_todo;
byte source_key, target_key, source_line, target_line = FIRST, copy;
short first[KEYS]; /* words on the first line, by key */
short ask[3];      /* words on the new lines 1 and 2 */
byte ask_key[3];
bool up[4];        /* by line */
bool source_runs = true, target_runs, target_ran, target_has, doubted, ask_over, lingers = true, lost;
byte asked = NO_KEY; /* the last key that an EOF was sent for */
byte source_is, target_is, stale, written, disk = SOURCE;

#ifdef ENDLESS
#define LEFT true
#define SPEND skip
#else
byte faults = FAULTS;
#define LEFT faults
#define SPEND faults--
#endif

/* Scratch of one step; 0 between steps. */
mtype event, next;
mtype said;
short actions, word, heard;
byte key;

#define source_ended (source == SOURCE_AWAY || source == SOURCE_HERE)
#define target_ended (target == TARGET_RUNS || target == TARGET_REFUSED || target == TARGET_EMPTY)
#define current (!((stale >> copy) & 1))
#define source_can_go_on (source_is == ALIVE && !target_ran)
#define target_can_go_on                                                                                               \
    (target_is == ALIVE && target_has && current &&                                                                   \
     (target == TARGET_PREPARED || target == TARGET_STARTING || target == TARGET_UNRESOLVED || target == TARGET_RUNS))
#ifdef BLIND
#define blind true
#else
#define blind false
#endif
#ifdef REHEARSAL
#define rehearses(k) (k < ATTEMPTS)
#else
#define rehearses(k) false
#endif
#ifdef PLANT_KEYS
#define same(a, b) true
#else
#define same(a, b) (a == b)
#endif

/* --- the table -------------------------------------------------------------------------------------------------------- */

#define ROW(s, e, n, a) :: (at == s && event == e) -> next = n; actions = a;

/* In a d_step the first row that fits is taken, so a planted one stands for the real one. */
inline decide(at)
{
    if
#ifdef PLANT_SILENCE
    ROW(SOURCE_RELEASED, HANDOVER_SILENCE, SOURCE_HERE, DO_FORGET_RELEASED | DO_SEND_RETRACT | DO_RESUME)
#endif
#ifdef PLANT_DROP
    ROW(TARGET_PREPARED, HANDOVER_LINK_LOST, TARGET_EMPTY, DO_UNLOAD)
#endif
#ifdef PLANT_GUEST
    ROW(TARGET_LOADING, HANDOVER_REHEARSED, TARGET_PREPARED, DO_SEND_PREPARED)
#endif
#ifdef PLANT_DEAF
    ROW(TARGET_RUNS, HANDOVER_ASK, TARGET_RUNS, 0)
#endif
#include "handover_rows.pml"
    :: else -> next = at; actions = 0;
    fi
}

/* --- promises, in every state ------------------------------------------------------------------------------------------- */

inline check()
{
    assert(!(source_runs && target_runs));
    assert(!source_runs || disk == SOURCE);
    assert(!target_runs || disk == TARGET);
    assert(lost || (source_can_go_on && (source != SOURCE_AWAY || blind)) || target_can_go_on);
    assert(!target_runs || (target_has && current && target == TARGET_RUNS));
    assert(source_is != ALIVE || !source_runs || source == SOURCE_MOVING || source == SOURCE_HERE);
    assert(source_is != ALIVE || !source_runs || (!written && !target_ran));
    assert(source_is != ALIVE || source != SOURCE_HERE || source_todo || source_runs);
    assert(!rehearses(target_key) || (target != TARGET_PREPARED && target != TARGET_STARTING &&
                                      target != TARGET_UNRESOLVED && target != TARGET_RUNS && target != TARGET_REFUSED));
    assert(!rehearses(source_key) || (!written && disk != NOBODY) || source_is != ALIVE);
}

/* --- performing, the source ---------------------------------------------------------------------------------------------- */

inline put(line, k, w)
{
    if
    :: up[line] && line == FIRST -> first[k] = first[k] | (w)
    :: up[line] && line != FIRST -> ask[line] = ask[line] | (w)
    :: else
    fi
}

inline keep_words(line, w)
{
    if
    :: line == FIRST ->
        first[0] = first[0] & (w); first[1] = first[1] & (w); first[2] = first[2] & (w);
        first[3] = first[3] & (w); first[4] = first[4] & (w); first[5] = first[5] & (w)
    :: line == 1 || line == 2 -> ask[line] = ask[line] & (w)
    :: else
    fi
}

inline source_says(w)
{
    if
    :: (!blind || w == W_EOF) && !(source_line == FIRST && doubted && w != W_DONE) -> put(source_line, source_key, w)
    :: else
    fi
}

inline source_settles()
{
    if
    :: !source_todo && source_line != FIRST && (ask_over || source_ended) ->
        up[source_line] = false;
        keep_words(source_line, TO_TARGET);
        source_line = FIRST;
        ask_over = false
    :: else
    fi;
    if
    :: !source_todo && source_ended -> up[FIRST] = false; keep_words(FIRST, TO_TARGET); doubted = false
    :: else
    fi
}

inline source_feed(e)
{
    event = e;
    decide(source);
    source = next;
    source_todo = actions;
    doubted = doubted || next == SOURCE_UNRESOLVED;
    if
    :: blind && next == SOURCE_UNRESOLVED -> up[FIRST] = false
    :: else
    fi;
    event = 0; next = 0; actions = 0;
    source_settles();
    check()
}

inline source_resumes()
{
    assert(disk != TARGET);
    disk = SOURCE;
    source_runs = true;
    stale = stale | (1 << source_key)
}

inline source_acts()
{
    actions = source_todo & -source_todo;
    source_todo = source_todo & ~actions;
    if
    :: actions == DO_FORGET_RELEASED -> written = 0
    :: actions == DO_SEND_RETRACT -> source_says(W_RETRACT)
    :: actions == DO_RESUME -> source_resumes()
    :: actions == DO_SEND_GO ->
        assert(written);
        word = (blind -> W_EOF : W_GO);
        source_says(word)
    :: actions == DO_SEND_DONE -> source_says(W_DONE)
    :: actions == DO_NEXT_ATTEMPT -> source_key++
    :: else -> assert(false)
    fi;
    actions = 0; word = 0;
    source_settles();
    check()
}

inline source_hears(w, k)
{
    if
    :: !same(k, source_key)
    :: else ->
        if
        :: w == W_PREPARED && source == SOURCE_ASKED ->
            said = (rehearses(k) -> HANDOVER_REHEARSED : HANDOVER_PREPARED)
        :: w == W_RUNNING && (source == SOURCE_RELEASED || source == SOURCE_UNRESOLVED) -> said = HANDOVER_RUNNING
        :: w == W_REFUSED && (source == SOURCE_RELEASED || source == SOURCE_UNRESOLVED) -> said = HANDOVER_REFUSED
        :: w == W_ERROR -> said = HANDOVER_PEER_ERROR
        :: else
        fi
    fi;
    if
    :: said -> source_feed(said)
    :: else
    fi;
    said = 0
}

inline source_is_answered(w)
{
    up[FIRST] = up[FIRST] && w == W_ERROR;
    ask_over = !(w == W_PREPARED && source == SOURCE_UNRESOLVED);
    if
    :: w == W_PREPARED && source == SOURCE_UNRESOLVED -> said = HANDOVER_PREPARED
    :: w == W_RUNNING -> said = HANDOVER_RUNNING
    :: w == W_REFUSED -> said = HANDOVER_REFUSED
    :: else -> said = HANDOVER_LINK_LOST
    fi;
    source_feed(said);
    said = 0
}

/* --- performing, the destination --------------------------------------------------------------------------------------------- */

inline target_leaves_line()
{
    keep_words(target_line, TO_SOURCE);
    up[target_line] = false;
    target_line = NONE
}

inline target_settles()
{
    if
    :: !target_todo && target_ended && !(lingers && target != TARGET_EMPTY) -> target_leaves_line()
    :: else
    fi
}

inline target_feed(e)
{
    event = e;
    decide(target);
    if
    :: target != TARGET_LOADING && next == TARGET_LOADING -> target_key++
    :: else
    fi;
    target = next;
    target_todo = actions;
    event = 0; next = 0; actions = 0;
    target_settles();
    check()
}

inline target_starts()
{
    target_todo = 0;
    assert(target_has && current);
    disk = TARGET;
    target_runs = true;
    target_ran = true;
    target_feed(HANDOVER_STARTED)
}

inline target_does_not_start()
{
    target_todo = 0;
    lost = lost || !source_can_go_on;
    target_feed(HANDOVER_START_FAILED)
}

inline target_acts()
{
    actions = target_todo & -target_todo;
    target_todo = target_todo & ~actions;
    if
    :: actions == DO_UNLOAD -> target_has = false
    :: actions == DO_SEND_PREPARED -> word = W_PREPARED
    :: actions == DO_SEND_RUNNING -> word = W_RUNNING
    :: actions == DO_SEND_REFUSED -> word = W_REFUSED
    :: actions == DO_SEND_ERROR -> word = W_ERROR
    :: actions == DO_WRITE_REFUSED || actions == DO_SEND_RETRACTED
    :: else -> assert(false)
    fi;
    if
    :: word && !blind -> put(target_line, target_key, word)
    :: else
    fi;
    actions = 0; word = 0;
    target_settles();
    check()
}

inline target_hears(w, k)
{
    if
    :: !same(k, target_key)
    :: else ->
        if
        :: w == W_EOF && target == TARGET_LOADING && target_key != NO_KEY ->
            target_has = true;
            copy = k;
            said = (rehearses(k) -> HANDOVER_REHEARSED : HANDOVER_LOADED)
        :: w == W_GO -> said = HANDOVER_GO
        :: w == W_RETRACT -> said = HANDOVER_RETRACT
        :: w == W_DONE && target_ended -> lingers = false; target_settles()
        :: else
        fi
    fi;
    if
    :: said -> target_feed(said)
    :: else
    fi;
    said = 0
}

#define target_holds                                                                                                    \
    (target == TARGET_PREPARED || target == TARGET_UNRESOLVED ||                                                      \
     (lingers && (target == TARGET_RUNS || target == TARGET_REFUSED)))

inline target_is_asked(line)
{
    if
    :: target_key == NO_KEY || !target_holds || !same(ask_key[line], target_key) -> ask[line] = ask[line] & ~W_RETRACT
    :: else
    fi;
    if
    :: target_key == NO_KEY || (target_holds && !same(ask_key[line], target_key)) -> put(line, 0, W_ERROR)
    :: target_key != NO_KEY && !target_holds -> up[line] = false
    :: else ->
        target_leaves_line();
        target_feed(HANDOVER_LINK_LOST);
        target_line = line;
        target_feed(HANDOVER_ASK)
    fi
}

/* --- words arrive, come again, are lost ---------------------------------------------------------------------------------------- */

#define source_reads(line) (source_is == ALIVE && !source_todo && source_line == line && !source_ended)
#define target_reads(line) (target_is == ALIVE && !target_todo && target_line == line)
#define target_listens                                                                                                  \
    (target_is == ALIVE && !target_todo && target != TARGET_STARTING &&                                               \
     (target != TARGET_LOADING || target_key == NO_KEY))

/* What arrives, and what is lost. */
#define FIRST_WORD(k, w, reads)                                                                                         \
    :: (first[k] & w) && reads(FIRST) -> heard = w; key = k
#define FIRST_WORDS(k)                                                                                                  \
    FIRST_WORD(k, W_EOF, target_reads)                                                                                 \
    FIRST_WORD(k, W_GO, target_reads)                                                                                  \
    FIRST_WORD(k, W_RETRACT, target_reads)                                                                             \
    FIRST_WORD(k, W_DONE, target_reads)                                                                                \
    FIRST_WORD(k, W_PREPARED, source_reads)                                                                            \
    FIRST_WORD(k, W_RUNNING, source_reads)                                                                             \
    FIRST_WORD(k, W_REFUSED, source_reads)                                                                             \
    FIRST_WORD(k, W_ERROR, source_reads)
#define NEW_WORD(line, w, reads)                                                                                        \
    :: (ask[line] & w) && reads -> heard = w; key = line
#define NEW_WORDS(line)                                                                                                 \
    NEW_WORD(line, W_RESUME, target_listens)                                                                           \
    NEW_WORD(line, W_GO, target_reads(line))                                                                           \
    NEW_WORD(line, W_RETRACT, target_reads(line))                                                                      \
    NEW_WORD(line, W_DONE, target_reads(line))                                                                         \
    NEW_WORD(line, W_PREPARED, source_reads(line))                                                                     \
    NEW_WORD(line, W_RUNNING, source_reads(line))                                                                      \
    NEW_WORD(line, W_REFUSED, source_reads(line))                                                                      \
    NEW_WORD(line, W_ERROR, source_reads(line))
#define LOSSES(words)                                                                                                   \
    :: d_step { (words & W_EOF) && LEFT -> SPEND; words = words & ~W_EOF }                                       \
    :: d_step { (words & W_GO) && LEFT -> SPEND; words = words & ~W_GO }                                         \
    :: d_step { (words & W_RETRACT) && LEFT -> SPEND; words = words & ~W_RETRACT }                               \
    :: d_step { (words & W_DONE) && LEFT -> SPEND; words = words & ~W_DONE }                                     \
    :: d_step { (words & W_RESUME) && LEFT -> SPEND; words = words & ~(W_RESUME | W_RETRACT) }                                \
    :: d_step { (words & W_PREPARED) && LEFT -> SPEND; words = words & ~W_PREPARED }                             \
    :: d_step { (words & W_RUNNING) && LEFT -> SPEND; words = words & ~W_RUNNING }                               \
    :: d_step { (words & W_REFUSED) && LEFT -> SPEND; words = words & ~W_REFUSED }                               \
    :: d_step { (words & W_ERROR) && LEFT -> SPEND; words = words & ~W_ERROR }

proctype lines()
{
end:
    do
    :: atomic {
        if
        FIRST_WORDS(0) FIRST_WORDS(1) FIRST_WORDS(2) FIRST_WORDS(3) FIRST_WORDS(4) FIRST_WORDS(5)
        fi;
        if
        :: first[key] = first[key] & ~heard
        :: LEFT -> SPEND /* and it comes once more */
        fi;
        d_step {
            if
            :: heard & TO_SOURCE -> source_hears(heard, key)
            :: else -> target_hears(heard, key)
            fi;
            heard = 0; key = 0
        } }
    :: atomic {
        if
        NEW_WORDS(1) NEW_WORDS(2)
        fi;
        if
        :: ask[key] = ask[key] & ~heard
        :: LEFT -> SPEND
        fi;
        d_step {
            if
            :: heard & TO_SOURCE -> source_is_answered(heard)
            :: heard == W_RESUME -> target_is_asked(key)
            :: else -> target_hears(heard, ask_key[key])
            fi;
            heard = 0; key = 0
        } }
    LOSSES(first[0]) LOSSES(first[1]) LOSSES(first[2]) LOSSES(first[3]) LOSSES(first[4]) LOSSES(first[5])
    LOSSES(ask[1]) LOSSES(ask[2])
    :: d_step { up[FIRST] && LEFT -> SPEND; up[FIRST] = false }
    :: d_step { up[1] && LEFT -> SPEND; up[1] = false }
    :: d_step { up[2] && LEFT -> SPEND; up[2] = false }
    od
}

/* --- the source ------------------------------------------------------------------------------------------------------------------ */

#define source_idle (source_is == ALIVE && !source_todo)
#define source_doubts (doubted && source_line == FIRST)
#define source_moves (source == SOURCE_MOVING || source == SOURCE_STOPPED || source == SOURCE_ASKED)
#define asking_helps                                                                                                    \
    (target_is == ALIVE && target_key == source_key && target != TARGET_LOADING && target != TARGET_EMPTY &&          \
     (lingers || !target_ended))
#define line_free(line) (!ask[line] && target_line != line)
#define may_ask (source_idle && source == SOURCE_UNRESOLVED && source_line == FIRST && target_is == ALIVE && !blind)

inline asks(line)
{
    up[line] = true;
    ask_key[line] = source_key;
    source_line = line;
    put(line, 0, W_RESUME)
}

/* The guest is here again, and who may still hold its copy is told over a new line. */
#define may_recall                                                                                                      \
    (source_idle && source == SOURCE_HERE && source_line == FIRST && target_is == ALIVE && !blind &&                 \
     asked != NO_KEY && line_free(2))
#ifdef PLANT_MUTE
#define recall_helps false
#else
#define recall_helps ((target == TARGET_PREPARED || target == TARGET_UNRESOLVED) && target_key == asked)
#endif

inline recalls()
{
    up[2] = true;
    ask_key[2] = asked;
    source_line = 2;
    put(2, 0, W_RESUME | W_RETRACT)
}

proctype source_side()
{
end:
    do
    :: d_step { source_is == ALIVE && source_todo && !(source_todo & DO_WRITE_RELEASED) -> source_acts() }
    :: d_step { source_is == ALIVE && (source_todo & DO_WRITE_RELEASED) ->
        written = source_key + 1; disk = NOBODY; source_todo = 0; source_feed(HANDOVER_WRITTEN) }
    :: d_step { source_is == ALIVE && (source_todo & DO_WRITE_RELEASED) && LEFT ->
        SPEND; written = source_key + 1; source_todo = 0; source_feed(HANDOVER_WRITE_FAILED) }
    /* in a later attempt a round was loaded there, so RETRACT was heard */
    :: d_step { source_idle && source == SOURCE_MOVING &&
        (source_key % ATTEMPTS == 0 || target_is != ALIVE || target_key != source_key - 1) -> source_runs = false; source_feed(HANDOVER_STOPPED) }
    :: d_step { source_idle && source == SOURCE_STOPPED ->
        stale = stale & ~(1 << source_key);
        if
        :: blind -> source_feed(HANDOVER_UNANSWERED)
        :: else -> put(FIRST, source_key, W_EOF); asked = source_key; source_feed(HANDOVER_SENT)
        fi }
    :: d_step { blind && source_idle && source == SOURCE_RELEASED && up[FIRST] -> source_feed(HANDOVER_TAKEN) }
    :: d_step { may_recall && recall_helps -> recalls() }
    :: d_step { may_recall && !recall_helps && LEFT -> SPEND; recalls() }
    :: d_step { may_ask && asking_helps && line_free(1) -> asks(1) }
    :: d_step { may_ask && asking_helps && !line_free(1) && line_free(2) -> asks(2) }
    :: d_step { may_ask && !asking_helps && line_free(1) && LEFT -> SPEND; asks(1) }
    :: d_step { may_ask && !asking_helps && !line_free(1) && line_free(2) && LEFT -> SPEND; asks(2) }
    /* its line has gone */
    :: d_step { source_line == FIRST && source_reads(FIRST) && !up[FIRST] && !source_doubts ->
        keep_words(FIRST, TO_TARGET); source_feed(HANDOVER_LINK_LOST) }
    :: d_step { source_line != FIRST && source_reads(source_line) && !up[source_line] ->
        keep_words(source_line, TO_TARGET); ask_over = true; source_feed(HANDOVER_LINK_LOST) }
    /* trouble */
    :: d_step { source_idle && source_moves && LEFT -> SPEND; source_feed(HANDOVER_CANCEL) }
    :: d_step { source_idle && (source == SOURCE_ASKED || (source == SOURCE_RELEASED && !source_doubts)) &&
        source_line == FIRST && LEFT -> SPEND; source_feed(HANDOVER_PEER_ERROR) }
    :: d_step { source_idle && source == SOURCE_ASKED && (first[source_key] & W_PREPARED) && LEFT ->
        SPEND; first[source_key] = first[source_key] & ~W_PREPARED; source_feed(HANDOVER_PREPARED_MISMATCH) }
    :: d_step { source_idle && source == SOURCE_STOPPED && LEFT -> SPEND; source_feed(HANDOVER_OVERRUN) }
    :: d_step { source_idle && source == SOURCE_ASKED && source_key % ATTEMPTS == 0 && LEFT ->
        SPEND; source_feed(HANDOVER_OVERRUN); source_todo = source_todo | DO_NEXT_ATTEMPT }
    /* silence: too early, or because nothing else can come */
    :: d_step { source_idle && source_line != FIRST && LEFT ->
        SPEND; ask_over = true; source_feed(HANDOVER_LINK_LOST) }
    :: atomic { timeout && source_idle && source_line != FIRST -> d_step { ask_over = true; source_feed(HANDOVER_LINK_LOST) } }
    :: d_step { source_idle && source_line == FIRST && (source_moves || (source == SOURCE_RELEASED && !source_doubts)) &&
        LEFT -> SPEND; source_feed(HANDOVER_SILENCE) }
    :: atomic { timeout && source_idle && source_line == FIRST &&
        (source_moves || (source == SOURCE_RELEASED && !source_doubts)) -> d_step { source_feed(HANDOVER_SILENCE) } }
    /* a guest that came back moves once more */
    :: d_step { source_idle && source == SOURCE_HERE && source_key < ATTEMPTS && !target_ran && target_is == ALIVE &&
        target == TARGET_LOADING && target_key == NO_KEY && LEFT ->
        SPEND;
        if
        :: source_line != FIRST -> up[source_line] = false; keep_words(source_line, TO_TARGET); source_line = FIRST
        :: else
        fi;
        source = SOURCE_MOVING; source_key = ATTEMPTS; target_key = ATTEMPTS; target_line = FIRST; up[FIRST] = true;
        lingers = true }
    od
}

/* --- the destination ---------------------------------------------------------------------------------------------------------------- */

#define target_idle (target_is == ALIVE && !target_todo)
#define target_loads (target == TARGET_LOADING && target_key != NO_KEY)
#define target_waits ((target == TARGET_PREPARED && !blind) || target == TARGET_REHEARSED)

proctype target_side()
{
end:
    do
    :: d_step { target_is == ALIVE && target_todo && !(target_todo & DO_START) -> target_acts() }
    :: d_step { target_is == ALIVE && (target_todo & DO_START) && disk == NOBODY -> target_starts() }
    :: d_step { target_is == ALIVE && (target_todo & DO_START) && disk != NOBODY -> target_does_not_start() }
    :: d_step { target_is == ALIVE && (target_todo & DO_START) && disk == NOBODY && LEFT ->
        SPEND; target_does_not_start() }
    :: d_step { blind && target_idle && target == TARGET_PREPARED -> target_feed(HANDOVER_GO) }
    :: d_step { target_line != NONE && target_idle && !up[target_line] && !(blind && target == TARGET_PREPARED) ->
        keep_words(target_line, TO_SOURCE); target_line = NONE; target_feed(HANDOVER_LINK_LOST) }
    :: d_step { target_idle && target_loads && LEFT -> SPEND; target_feed(HANDOVER_LOAD_FAILED) }
    :: d_step { target_idle && target_loads && LEFT -> SPEND; target_feed(HANDOVER_CANCEL) }
    :: d_step { target_idle && (target_loads || target_waits) && LEFT ->
        SPEND; target_feed(HANDOVER_PEER_ERROR) }
    :: d_step { target_idle && target == TARGET_REHEARSED && LEFT -> SPEND; target_feed(HANDOVER_CANCEL) }
    :: d_step { target_idle && target_waits && LEFT ->
        SPEND; target_feed(HANDOVER_SILENCE) }
    :: atomic { timeout && target_idle && target_waits -> d_step { target_feed(HANDOVER_SILENCE) } }
    :: d_step { target_idle && target_ended && lingers && LEFT -> SPEND; lingers = false; target_settles() }
    :: d_step { (target_is == DEAD || (target_idle && (target == TARGET_EMPTY || target == TARGET_REFUSED))) && LEFT &&
        !(target_is == ALIVE && target_key == NO_KEY) ->
        SPEND; target_leaves_line(); target_is = ALIVE; target = TARGET_LOADING; target_key = NO_KEY;
        lingers = false }
    od
}

/* --- deaths, restarts, people --------------------------------------------------------------------------------------------------------- */

#define target_will_not_start                                                                                           \
    (!target_ran && (target_is == DEAD ||                                                                             \
                     (!target_has && !target_todo &&                                                                  \
                      (target_key == NO_KEY || target == TARGET_EMPTY || target == TARGET_REFUSED))))
#define silence_ends_it                                                                                                 \
    ((source_idle && (source_line != FIRST && source_line != NONE || source_moves ||                                  \
                      (source == SOURCE_RELEASED && !source_doubts))) ||                                              \
     (target_idle && target_waits))
#define noted (written == copy + 1)
#define source_waits (source_is == ALIVE && source == SOURCE_UNRESOLVED && source_key == copy)
#define source_holds                                                                                                    \
    (source_is == ALIVE && !source_waits && source != SOURCE_RELEASED && source != SOURCE_AWAY)
#define may_say_here (source_idle && source == SOURCE_UNRESOLVED && source_line == FIRST && target_will_not_start)
#define may_say_there (source_idle && source == SOURCE_UNRESOLVED && source_line == FIRST && target_ran)
#define may_take_back (blind && source_idle && source == SOURCE_AWAY && target_will_not_start)
#define may_run_there (target_idle && target == TARGET_UNRESOLVED && (source_waits || (source_is == DEAD && noted)))
#define may_drop_there                                                                                                  \
    (target_idle && target == TARGET_UNRESOLVED && (source_holds || (source_is != ALIVE && !noted)))
#define a_person_ends_it (may_say_here || may_say_there || may_take_back || may_run_there || may_drop_there)
#define source_rests (source_is != ALIVE || (source == SOURCE_AWAY && !source_runs && !written))
#define target_rests                                                                                                    \
    (target_is == DEAD || target_key == NO_KEY || target == TARGET_EMPTY || target == TARGET_REFUSED)
#define source_alone (source_is == ALIVE && source == SOURCE_HERE && source_runs && !written)
#define good_end                                                                                                        \
    ((target_runs && source_rests) || (!target_runs && target_rests && (source_alone || (lost && source_rests))))

/* A person's word: at any moment as a fault, and when nothing else goes on. */
#define SAYS(may, does)                                                                                                 \
    :: d_step { may && LEFT -> SPEND; does }                                                                     \
    :: atomic { timeout && !silence_ends_it && may -> d_step { does } }

proctype people()
{
    do
    SAYS(may_say_here, source_feed(HANDOVER_RESOLVE_HERE))
    SAYS(may_say_there, source_feed(HANDOVER_RESOLVE_THERE))
    SAYS(may_take_back, source = SOURCE_HERE; source_resumes(); check())
    SAYS(may_run_there, target_feed(HANDOVER_RESOLVE_HERE))
    SAYS(may_drop_there, target_feed(HANDOVER_RESOLVE_THERE))
    :: d_step { target_idle && target == TARGET_UNRESOLVED && source_waits && LEFT ->
        SPEND; target_feed(HANDOVER_RESOLVE_THERE) } /* the source has it too */
    /* kill -9 */
    :: d_step { source_is == ALIVE && LEFT ->
        SPEND;
        lost = lost || !(target_can_go_on && (target_ran || noted));
        source_is = DEAD; source_runs = false; source_todo = 0; source_line = NONE; ask_over = false;
        up[FIRST] = false; up[1] = false; up[2] = false;
        keep_words(FIRST, TO_TARGET); keep_words(1, TO_TARGET); keep_words(2, TO_TARGET);
        disk = (disk == SOURCE -> NOBODY : disk);
        check() }
    :: d_step { target_is == ALIVE && LEFT ->
        SPEND;
        lost = lost || !source_can_go_on || (source == SOURCE_AWAY && !blind);
        target_is = DEAD; target_runs = false; target_has = false; target_todo = 0; target_line = NONE;
        up[FIRST] = false; up[1] = false; up[2] = false;
        keep_words(FIRST, TO_SOURCE); keep_words(1, TO_SOURCE); keep_words(2, TO_SOURCE);
        disk = (disk == TARGET -> NOBODY : disk);
        check() }
    /* somebody starts the guest from its disk */
    :: d_step { source_is == DEAD && !written && disk == NOBODY && !blind && LEFT ->
        SPEND; source_is = COLD; source_runs = true; disk = SOURCE; check() }
    /* an operator, who looked there, is quicker than GO */
    :: d_step { source_idle && source == SOURCE_UNRESOLVED && source_line != FIRST && (ask[source_line] & W_PREPARED) &&
        (target == TARGET_PREPARED || target == TARGET_UNRESOLVED) && LEFT ->
        SPEND; ask[source_line] = ask[source_line] & ~W_PREPARED; up[FIRST] = false; ask_over = true;
        source_feed(HANDOVER_RESOLVE_HERE) }
    /* a source that knows has told its destination, and needs no person for that */
    :: atomic { timeout && !silence_ends_it && may_drop_there && source_is == ALIVE && source == SOURCE_HERE ->
        assert(false) }
    :: timeout && !silence_ends_it && !a_person_ends_it -> assert(good_end); break
    od
}

init
{
    atomic {
        up[FIRST] = true;
        run lines(); run source_side(); run target_side(); run people()
    }
}
