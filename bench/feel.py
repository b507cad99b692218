"""What a guest felt, from what it said on its serial line (bench/guest/dirty.h) and when that arrived. Pure: no clocks, no files.

Times are nanoseconds of the host's CLOCK_REALTIME. A guest's RTC should follow it, but an emulator may set it to whole seconds, or
shift it when the guest moves, which hides a part of the pause from the guest: so each side's RTC is compared with the times at which
its lines arrived, and what it lost on the way is added to the pause.
"""
import bisect, collections, re

LINE = re.compile(r'D (\d+) rtc (\d+) guest (\d+) gap (\d+) at (\d+) pages (\d+) errors (\d+)')
END = re.compile(r'END (ok|failed) pages (\d+) errors (\d+)')
TROUBLE = re.compile(r'(ERROR|FAILED|Kernel panic|Oops|BUG:|trap.*cause|soft lockup|rcu.*stall|Segmentation fault)[^\n]*')
SLIP_NS = 1_000_000  # arrivals are not known better
Sample = collections.namedtuple('Sample', 'at guest gap gap_end pages errors arrived')


def lines_of(chunks):
    """[(time of arrival, text)] of whole lines, without the beats; chunks: [(time of arrival, bytes)]"""
    found, rest = [], b''
    for at, data in chunks:
        *whole, rest = (rest + data.replace(b'.', b'').replace(b'\r', b'')).split(b'\n')
        found += [(at, line.decode(errors='replace')) for line in whole if line]
    return found


def beats_of(chunks):
    """When beats arrived."""
    return [at for at, data in chunks if b'.' in data]


def side(chunks):
    """(samples by the host's clock, the host's clock less the guest's RTC or None): what one emulator's line tells."""
    told = [(at, [int(n) for n in match.groups()]) for at, line in lines_of(chunks) if (match := LINE.search(line))]
    if not told:
        return [], None
    offset = min(at - numbers[1] for at, numbers in told)  # the line that came quickest
    return [Sample(rtc + offset, guest, gap, end + offset, pages, errors, at)
            for at, (_, rtc, guest, gap, end, pages, errors) in told], offset


def longest(samples, begin, end):
    """The longest gap that ended within [begin, end], in ns."""
    return max((s.gap for s in samples if begin <= s.gap_end <= end), default=0)


def longest_silence(times, begin, end):
    """Of arrivals of beats: the longest time without one, of those that reach into [begin, end]."""
    first = max(0, bisect.bisect_left(times, begin) - 1)
    last = min(len(times), bisect.bisect_right(times, end) + 1)
    return max((b - a for a, b in zip(times[first:last], times[first + 1:last])), default=0)


def pages_at(samples, at):
    """Pages written until then, between two samples in proportion."""
    index = bisect.bisect_left([s.at for s in samples], at)
    if index == 0 or index == len(samples):
        return float(samples[min(index, len(samples) - 1)].pages)
    before, after = samples[index - 1], samples[index]
    share = (at - before.at) / max(1, after.at - before.at)
    return before.pages + share * (after.pages - before.pages)


def rate(samples, begin, end):
    """Pages a second of the host's time."""
    return (pages_at(samples, end) - pages_at(samples, begin)) / max(1e-9, (end - begin) / 1e9)


def across(after, last_here, first_there):
    """Which of the lines from over there carries the gap that the move itself was: the longest that lies across the time between the
    last byte here and the first there. A line that waited in the guest's buffers while it moved was written before."""
    found = [i for i, s in enumerate(after[:4]) if s.gap_end >= last_here and s.gap_end - s.gap <= first_there]
    return max(found, key=lambda i: after[i].gap, default=0)


def felt(source, destination, control, move, tail_ns):
    """The guest's side of one move. source, destination: chunks of the two serial lines; control, move: (begin, end).

    Of a guest that did not move (destination empty) it is the same without a pause of its own.
    """
    before, source_offset = side(source)
    after, destination_offset = side(destination)
    begin, end = move[0], move[1] + tail_ns
    slip = destination_offset - source_offset if before and after else 0
    pause = None
    if after:
        index = across(after, source[-1][0], destination[0][0])
        after[index] = after[index]._replace(gap=after[index].gap + (slip if slip > SLIP_NS else 0))
        pause = after[index].gap
    both = before + after
    if not both:
        return None
    beats = beats_of(source) + beats_of(destination)
    usual = rate(both, *control)
    seconds = (end - begin) / 1e9
    done = pages_at(both, end) - pages_at(both, begin)
    return {'pause_ms': None if pause is None else pause / 1e6,
            'gap_ms': longest(both, begin, end) / 1e6,
            'gap_control_ms': longest(both, *control) / 1e6,
            'serial_gap_ms': longest_silence(beats, begin, end) / 1e6,
            'serial_gap_control_ms': longest_silence(beats, *control) / 1e6,
            'rtc_slip_ms': slip / 1e6,
            'pages_per_s_control': usual,
            'pages_per_s_move': rate(both, *move) if move[1] > move[0] else None,
            'lost_work_s': seconds - done / usual if usual > 0 else None,
            'window_s': seconds,
            'errors': max(s.errors for s in both),
            'gaps_ms': [round(s.gap / 1e6, 3) for s in both if begin <= s.gap_end <= end],
            'gaps_control_ms': [round(s.gap / 1e6, 3) for s in both if control[0] <= s.gap_end <= control[1]],
            'speed': [[round((b.at - move[0]) / 1e9, 3), round((b.pages - a.pages) / max(1e-9, (b.at - a.at) / 1e9))]
                      for a, b in zip(both, both[1:]) if control[0] <= b.at <= end]}


def verdict(chunks):
    """None while the guest has not said how its check of everything ended; else '' or what is wrong."""
    text = '\n'.join(line for _, line in lines_of(chunks))
    trouble, end = TROUBLE.search(text), END.search(text)
    if trouble:
        return trouble.group(0).strip()
    if not end:
        return None
    return '' if end.group(1) == 'ok' and end.group(3) == '0' else end.group(0)
