"""A chart as SVG: two panels side by side over one logarithmic axis of sizes. Black on white, so
that it reads the same on a light and on a dark page."""

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 880, 380
TOP, BOTTOM = 64, 320
PANELS = ((64, 412), (504, 852))
COLOURS = ("#0b5fa5", "#c2410c", "#595959")
TICKS = 5
NAME_WIDTH = 60


@dataclass
class Panel:
    """One chart: its title, and lines by name, each a list of (size in MB, figure).

    `limit` is drawn as a dashed line, if there is one.
    """

    title: str
    lines: dict
    limit: float | None = None


def chart(title, note, panels):
    """Returns the SVG of two panels."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        ' font-family="sans-serif" font-size="13" fill="#1a1a1a">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(PANELS[0][0], 24, title, weight="bold"),
        text(PANELS[0][0], HEIGHT - 10, note, size=11),
    ]
    for (left, right), panel in zip(PANELS, panels, strict=True):
        parts += panel_parts(left, right, panel)
    return "\n".join([*parts, "</svg>", ""])


def panel_parts(left, right, panel):
    sizes = [size for line in panel.lines.values() for size, _ in line]
    figures = [figure for line in panel.lines.values() for _, figure in line]
    step, top = scale(max([*figures, panel.limit or 0]))
    low, high = math.log(min(sizes)), math.log(max(sizes))
    # A single size stands in the middle.
    width = high - low or 1
    x = lambda size: left + (math.log(size) - low) / width * (right - left)
    y = lambda figure: BOTTOM - figure / top * (BOTTOM - TOP)
    parts = [text(left, TOP - 14, panel.title)]
    for number in range(round(top / step) + 1):
        figure = number * step
        parts.append(line((left, y(figure)), (right, y(figure)), "#d9d9d9"))
        parts.append(text(left - 8, y(figure) + 4, f"{figure:g}", anchor="end"))
    for size in sorted(set(sizes)):
        parts.append(text(x(size), BOTTOM + 18, f"{size:.0f}", anchor="middle"))
    parts.append(text((left + right) / 2, BOTTOM + 36, "database, MB", anchor="middle"))
    if panel.limit is not None:
        level = y(panel.limit)
        parts.append(line((left, level), (right, level), "#1a1a1a", dash="5 4"))
        parts.append(text(left + 4, level - 6, f"limit {panel.limit:g}"))
    for number, (name, points) in enumerate(panel.lines.items()):
        places = [(x(size), y(figure)) for size, figure in points]
        parts += curve(places, COLOURS[number])
        place = right - NAME_WIDTH * (len(panel.lines) - 1 - number)
        parts.append(text(place, TOP - 14, name, anchor="end", fill=COLOURS[number]))
    return parts


def scale(largest):
    """Returns the distance between two lines of the grid, a round number, and the uppermost."""
    rough = largest / TICKS or 1
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return step, step * math.ceil(largest / step or 1)


def curve(places, colour):
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    dots = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places)
    return [*parts, *dots]


def line(start, end, colour, dash=None):
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        f' stroke="{colour}"{dashes}/>'
    )


def text(x, y, words, anchor="start", size=None, weight=None, fill=None):
    named = {"text-anchor": anchor, "font-size": size, "font-weight": weight, "fill": fill}
    more = "".join(f' {name}="{value}"' for name, value in named.items() if value)
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>'
