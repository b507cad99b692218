#!/bin/sh
# Two commits of godwit against each other: exit code 1 when the newer one is worse.
#
#   bench/compare.sh OLD NEW [OPTION of bench/harness.py...]     migrations, run by run in turn (default: two bare-metal cells, 5 pairs)
#   bench/compare.sh --instructions OLD NEW                      by instruction counts (callgrind): for hosts too busy for times, and CI
#
# Both are built below build/compare. --instructions counts what bench_parts and bench_street execute over 4 MiB, and allows 3 %
# (SLACK_PERCENT): threads make the counts differ a little.
set -eu
cd "$(dirname "$0")/.."
count=''
[ "${1:-}" != --instructions ] || { count=1 && shift; }
[ $# -ge 2 ] || { sed -n '4,5s/^# *//p' "$0" >&2 && exit 2; }
old=$(git rev-parse --verify "$1^{commit}") new=$(git rev-parse --verify "$2^{commit}")
shift 2
place=$PWD/build/compare
mkdir -p "$place"

built() { # COMMIT: its folder, built
    tree=$place/$1
    if [ ! -e "$tree/done" ]; then
        rm -rf "$tree"
        mkdir -p "$tree"
        git archive "$1" | tar -x -C "$tree"
        make -C "$tree" -j2 all bench-tools >"$tree/build.log" 2>&1 || { tail -n 20 "$tree/build.log" >&2 && exit 1; }
        touch "$tree/done"
    fi
    echo "$tree"
}
a=$(built "$old") b=$(built "$new")

if [ -n "$count" ]; then
    worse=0
    sample=$place/sample # the same bytes for both, no program's own
    [ -e "$sample" ] || cat docs/*.md "$b"/build/libgodwit.a | head -c 4194304 >"$sample"
    counted() { # FOLDER PROGRAM OPTION...: instructions
        folder=$1
        shift
        valgrind --tool=callgrind --callgrind-out-file=/dev/null "$folder/build/bench/$@" "$sample" 2>&1 >/dev/null |
            sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
    }
    for bench in 'bench_parts -m 4 -n 1' 'bench_street -m 4 -n 1'; do
        program=${bench%% *}
        if [ ! -x "$a/build/bench/$program" ] || [ ! -x "$b/build/bench/$program" ]; then
            echo "$program: only one of the two has it"
            continue
        fi
        # shellcheck disable=SC2086
        before=$(counted "$a" $bench) after=$(counted "$b" $bench)
        [ -n "$before" ] && [ -n "$after" ] || { echo "$program: valgrind counted nothing" >&2 && exit 2; }
        permille=$((after * 1000 / before))
        verdict=''
        [ "$permille" -le $((1000 + ${SLACK_PERCENT:-3} * 10)) ] || { verdict=': WORSE' && worse=1; }
        echo "$program: $after instructions, $before before, $((permille / 10)).$((permille % 10)) %$verdict"
    done
    exit $worse
fi

results=$place/$(echo "$old" | cut -c 1-12)-$(echo "$new" | cut -c 1-12).jsonl
cat >"$place/scenario.json" <<TXT
{"emulators": {"old": {"binary": "$a/build/godwit"}, "new": {"binary": "$b/build/godwit"}},
 "configurations": {"old": {"emulator": "old"}, "new": {"emulator": "new"}}}
TXT
[ $# -gt 0 ] || set -- --cells random25-1G,phases-1G --pairs 5
bench/harness.py --scenario "$place/scenario.json" --configurations old,new --no-still --results "$results" "$@" || true
bench/report.py --compare "$results:old" "$results:new"
