"""Plots as SVG text, by hand: lines, steps, points, marks; linear or logarithmic axes."""
import html, math

COLOURS = ['#0b6e4f', '#c1440e', '#2b4c9b', '#8a6d00', '#7b2d8b', '#4a4a4a', '#0f8b8d', '#b5179e', '#6a994e', '#9d0208', '#3a86ff']


def colour(index):
    return COLOURS[index % len(COLOURS)]


def ticks(low, high, most=6):
    """Round numbers that cover [low, high]."""
    span = max(high - low, 1e-12)
    step = 10 ** math.floor(math.log10(span / most))
    step = next(step * m for m in (1, 2, 5, 10) if span / (step * m) <= most)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, int(math.floor(high / step + 1e-9)) + 1)]


def decades(low, high):
    return [10.0 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


class Plot:
    """One pair of axes. Everything is added first; svg() lays it out."""

    def __init__(self, title, x, y, width=720, height=230, x_log=False, y_log=False, x_range=None, y_zero=True):
        self.title, self.x, self.y, self.width, self.height = title, x, y, width, height
        self.x_log, self.y_log, self.x_range, self.y_zero = x_log, y_log, x_range, y_zero
        self.lines, self.marks = [], []

    def line(self, points, colour, label=None, kind='line', width=1.5):
        """kind: line, step (each value lasts until the next), dots, or dash."""
        points = [(x, y) for x, y in points if y is not None and (not self.x_log or x > 0) and (not self.y_log or y > 0)]
        if points:
            self.lines.append((points, colour, label, kind, width))

    def mark(self, x, colour, label=''):
        self.marks.append((x, colour, label))

    def _limits(self, axis, log):
        values = [p[axis] for line in self.lines for p in line[0]]
        if axis == 0 and self.x_range:
            return self.x_range
        if not values:
            return (1, 10) if log else (0, 1)
        low, high = min(values), max(values)
        if log:
            return 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high) + 1e-9)
        low = min(low, 0) if axis == 1 and self.y_zero else low
        return (low, high + (high - low) * 0.05) if high > low else (low, low + 1)

    def _legend(self, left, right):
        """([(x, y, colour, label)], where the axes begin): behind the title where there is room, else in rows below it."""
        labels = [(shade, label, 24 + 6 * len(label)) for _, shade, label, _, _ in self.lines if label]
        x, y = right - sum(width for _, _, width in labels), 16
        if x < left + 20 + 7 * len(self.title):
            x, y = left, 31
        placed = []
        for shade, label, width in labels:
            if x + width > right and x > left:
                x, y = left, y + 14
            placed.append((x, y, shade, label))
            x += width
        return placed, y + 10

    def svg(self):
        left, right, bottom = 74, 14, 36
        legend, top = self._legend(left, self.width - right)
        inner_w, inner_h = self.width - left - right, self.height - top - bottom
        x_low, x_high = self._limits(0, self.x_log)
        y_low, y_high = self._limits(1, self.y_log)
        if self.x_log and x_low == x_high:
            x_high *= 10
        if self.y_log and y_low == y_high:
            y_high *= 10

        def place(value, low, high, log):
            if log:
                return (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
            return (value - low) / (high - low)

        def px(x):
            return left + inner_w * min(1, max(0, place(x, x_low, x_high, self.x_log)))

        def py(y):
            return top + inner_h * (1 - min(1, max(0, place(y, y_low, y_high, self.y_log))))

        def text(x, y, words, anchor='start', size=11, fill='#333', more=''):
            return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}"{more}>{html.escape(words)}</text>'

        out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
               f'height="{self.height}" font-family="sans-serif"><rect width="100%" height="100%" fill="#fff"/>',
               text(left, 16, self.title, size=13, fill='#000')]
        for y in (decades if self.y_log else ticks)(y_low, y_high):
            if y_low <= y <= y_high * 1.0000001:
                out.append(f'<path d="M{left} {py(y):.1f}H{left + inner_w}" stroke="#ddd"/>' + text(left - 6, py(y) + 4, f'{y:.4g}', 'end'))
        for x in (decades if self.x_log else ticks)(x_low, x_high):
            if x_low <= x <= x_high * 1.0000001:
                out.append(f'<path d="M{px(x):.1f} {top}V{top + inner_h}" stroke="#eee"/>' + text(px(x), top + inner_h + 14, f'{x:.4g}', 'middle'))
        out.append(text(left + inner_w / 2, self.height - 6, self.x, 'middle'))
        out.append(text(14, top + inner_h / 2, self.y, 'middle', more=f' transform="rotate(-90 14 {top + inner_h / 2:.0f})"'))
        for x, shade, label in self.marks:
            if x_low <= x <= x_high:
                out.append(f'<path d="M{px(x):.1f} {top}V{top + inner_h}" stroke="{shade}" stroke-dasharray="2 3" opacity=".6"/>')
                out.append(text(px(x) + 2, top + 9, label, size=8, fill=shade))
        for points, shade, _, kind, width in self.lines:
            if kind == 'dots':
                out += [f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="3.2" fill="{shade}" fill-opacity=".65"/>' for x, y in points]
            else:
                path = f'M{px(points[0][0]):.1f} {py(points[0][1]):.1f}'
                for (_, before), (x, y) in zip(points, points[1:]):
                    path += f'L{px(x):.1f} {py(before):.1f}' if kind == 'step' else ''
                    path += f'L{px(x):.1f} {py(y):.1f}'
                dash = ' stroke-dasharray="5 4"' if kind == 'dash' else ''
                out.append(f'<path d="{path}" fill="none" stroke="{shade}" stroke-width="{width}"{dash}/>')
        for x, y, shade, label in legend:
            out.append(f'<rect x="{x}" y="{y - 8}" width="9" height="9" fill="{shade}"/>' + text(x + 13, y, label, size=10))
        return '\n'.join([*out, '</svg>\n'])
