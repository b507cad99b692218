#!/bin/sh
# Two commits of godwit against each other: exit code 1 when the newer one is worse.
#
#   bench/compare.sh OLD NEW [OPTION of bench/harness.py...]     migrations, run by run in turn (default: two bare-metal cells, 5 pairs)
#   bench/compare.sh --instructions [OLD [NEW]]                  by instructions counted: for hosts too busy for times, and CI
#
# Commits are built below build/compare.
#
# --instructions holds the kernels of bench_count against each other: OLD, or the commit before this one, and NEW, or the tree as it
# stands. More than SLACK_PERCENT (5) more instructions are worse; counts differ by less than 0.01 % from run to run. A commit that
# is meant to cost says so in a line of its message, `Costs-instructions: why`. Where there is no older commit (a shallow clone, no
# repository) there is nothing to compare, which is said, and is no failure. valgrind's cachegrind counts: callgrind counts the same,
# but keeps a frame for each of the interpreter's tail calls, gigabytes of them. Generated code is patched through another mapping
# than the one that it runs from, hence --smc-check=all.
set -eu
cd "$(dirname "$0")/.."
count='' flags=''
[ "${1:-}" != --instructions ] || { count=1 && shift; }
[ -n "$count" ] || [ $# -ge 2 ] || { sed -n '4,5s/^# *//p' "$0" >&2 && exit 2; }
place=$PWD/build/compare
mkdir -p "$place"

commit() { # NAME: its hash
    git rev-parse --quiet --verify "$1^{commit}" || { echo "compare.sh: no commit $1" >&2 && exit 2; }
}

unpack() { # COMMIT: its folder, not built
    if [ ! -e "$place/$1/unpacked" ]; then
        rm -rf "${place:?}/$1"
        mkdir -p "$place/$1"
        git archive "$1" | tar -x -C "$place/$1"
        touch "$place/$1/unpacked"
    fi
    echo "$place/$1"
}

build() { # FOLDER TARGET...
    folder=$1
    shift
    log=$place/build.log
    env -u MAKEFLAGS -u MFLAGS -u BUILD make -C "$folder" -j"$(nproc)" ${flags:+CONFIGURE_FLAGS="$flags"} "$@" >"$log" 2>&1
}

# --- instructions ------------------------------------------------------------------------------------------------------------

tool=build/bench/bench_count

configured() { # FOLDER: with what
    sed -n 's/^CONFIGURED_WITH := *//p' "$1/build/config.mk" 2>/dev/null || true
}

# The same work for both: the newer tree's bench_count on the older one's sources, where these still go together.
build_older() { # OLDER NEWER
    cp "$1/bench/bench_count.c" "$place/own.c" 2>/dev/null || rm -f "$place/own.c"
    cp "$2/bench/bench_count.c" "$1/bench/"
    ! build "$1" $tool || return 0
    [ -e "$place/own.c" ] || return 1
    cp "$place/own.c" "$1/bench/bench_count.c"
    build "$1" $tool || return 1
    echo "the newer bench_count cannot be built on the older sources: each counts its own"
}

run_counted() { # FOLDER KERNEL ROUNDS: instructions of the whole run
    valgrind --tool=cachegrind --cache-sim=no --smc-check=all --cachegrind-out-file=/dev/null "$1/$tool" "$2" "$3" 2>&1 |
        sed -n 's/.*I *refs: *//p' | tr -d ,
}

count_kernel() { # FOLDER KERNEL: instructions of a round
    few=$(run_counted "$1" "$2" 1) many=$(run_counted "$1" "$2" 5)
    [ -n "$few" ] && [ -n "$many" ] && echo $(((many - few) / 4))
}

nothing() {
    echo "instructions: nothing to compare with: $1"
    exit 0
}

if [ -n "$count" ]; then
    command -v valgrind >/dev/null || { echo "compare.sh: no valgrind here: scripts/deps installs it" >&2 && exit 2; }
    git rev-parse --quiet --verify 'HEAD^{commit}' >/dev/null 2>&1 || nothing "this is no repository with commits"
    if [ $# -eq 0 ]; then
        old=$(git rev-parse --quiet --verify 'HEAD^1^{commit}') || nothing "there is no commit before this one here"
    else
        old=$(commit "$1")
    fi
    new=$PWD
    [ $# -lt 2 ] || new=$(unpack "$(commit "$2")")
    if ! build "$new" $tool; then
        tail -n 20 "$log" >&2
        exit 2
    fi
    flags=$(configured "$new") # as the newer one is
    [ "$flags" = "$(configured "$place/$old")" ] || rm -rf "${place:?}/$old"
    older=$(unpack "$old")
    build_older "$older" "$new" || nothing "bench_count cannot be built on $old ($log)"
    worse=''
    for kernel in $("$new/$tool"); do
        count_kernel "$older" "$kernel" >"$place/before" &
        after=$(count_kernel "$new" "$kernel") || { echo "compare.sh: $kernel: nothing was counted" >&2 && exit 2; }
        wait $! || { echo "$kernel: $after instructions; the older commit does not have it" && continue; }
        before=$(cat "$place/before")
        permille=$((after * 1000 / before))
        verdict=''
        [ "$permille" -le $((1000 + ${SLACK_PERCENT:-5} * 10)) ] || { verdict=': WORSE' && worse="$worse $kernel"; }
        echo "$kernel: $after instructions a round, $before before, $((permille / 10)).$((permille % 10)) %$verdict"
    done
    [ -n "$worse" ] || exit 0
    newest=HEAD
    [ $# -lt 2 ] || newest=$2
    why=$(git log --format=%B "$old..$newest" | sed -n 's/^Costs-instructions: *\([^ ].*\)/\1/p')
    if [ -n "$why" ]; then
        echo "wanted, say the commits:" "$why"
        exit 0
    fi
    echo "more than ${SLACK_PERCENT:-5} % more instructions than at $(echo "$old" | cut -c 1-12):$worse. If that is the price of something," \
        "say so in the commit's message: Costs-instructions: why"
    exit 1
fi

# --- migrations ---------------------------------------------------------------------------------------------------------------

built() { # COMMIT: its folder, built
    tree=$(unpack "$1")
    build "$tree" all bench-tools || { tail -n 20 "$log" >&2 && exit 1; }
    echo "$tree"
}
old=$(commit "$1") new=$(commit "$2")
shift 2
a=$(built "$old") b=$(built "$new")
results=$place/$(echo "$old" | cut -c 1-12)-$(echo "$new" | cut -c 1-12).jsonl
cat >"$place/scenario.json" <<TXT
{"emulators": {"old": {"binary": "$a/build/godwit"}, "new": {"binary": "$b/build/godwit"}},
 "configurations": {"old": {"emulator": "old"}, "new": {"emulator": "new"}}}
TXT
[ $# -gt 0 ] || set -- --cells random25-1G,phases-1G --pairs 5
bench/harness.py --scenario "$place/scenario.json" --configurations old,new --no-still --results "$results" "$@" || true
bench/report.py --compare "$results:old" "$results:new"
