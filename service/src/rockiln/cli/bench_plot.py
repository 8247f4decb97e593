"""A report as a picture: one panel a size, one row a scheduler, one bar a number of steps (SVG)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from rockiln.cli.bench_report import BenchReport, Case

# One hue, darker with more steps: the order is a quantity. Readable on white, in print and to
# people who see no red.
_SHADES = ("#9ecae9", "#4c9bd4", "#1f6fae", "#0b4a80", "#06294a")
_WIDTH, _LABELS, _RIGHT = 900, 190, 120
_BAR, _GAP, _ROW_GAP = 11, 2, 9
_MAX_TICKS = 6
_FONT = "font-family='system-ui, sans-serif'"


def as_svg(report: BenchReport) -> str:
    """The plot as an SVG document."""
    sizes = list(dict.fromkeys((case.width, case.height) for case in report.cases))
    runs = max((len(case.runs) for case in report.cases), default=0)
    body: list[str] = [
        _text(20, 30, f"{report.model.id} on {report.where}", size=18, weight="bold"),
        _text(
            20, 50,
            f"seconds per picture (median of {runs}, line: min to max), model in memory; "
            f"rockiln {report.versions.get('rockiln', '?')}, "
            f"torch {report.versions.get('torch', '?')}",
        ),
    ]  # fmt: skip
    steps = sorted({case.steps for case in report.cases})
    x = 20.0
    for place, number in enumerate(steps):
        body.append(f"<rect x='{x}' y='62' width='12' height='12' fill='{_shade(place, steps)}'/>")
        body.append(_text(x + 17, 72, f"{number} steps"))
        x += 90
    y = 90.0
    for width, height in sizes:
        panel = [case for case in report.cases if (case.width, case.height) == (width, height)]
        y = _panel(body, panel, steps, y)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {y:.0f}' "
        f"width='{_WIDTH}' height='{y:.0f}' role='img'>"
        f"<title>{escape(f'rockiln bench: {report.model.id} on {report.where}')}</title>"
        f"<rect width='100%' height='100%' fill='#ffffff'/>{''.join(body)}</svg>\n"
    )


def _panel(body: list[str], cases: list[Case], steps: Sequence[int], top: float) -> float:
    """Draws the cases of one size; returns where the next panel begins."""
    longest = max((case.picture_seconds.max for case in cases if case.picture_seconds), default=1.0)
    unit = _round_up(longest / _MAX_TICKS)
    ticks = math.ceil(longest / unit)
    scale = (_WIDTH - _LABELS - _RIGHT) / (unit * ticks)
    peak = max((case.peak_bytes or 0 for case in cases), default=0)
    head = f"{cases[0].width}x{cases[0].height} px"
    if peak:
        head += f", peak memory {peak / 2**30:.2f} GiB"
    body.append(_text(20, top + 18, head, size=14, weight="bold"))
    first, y = top + 32, top + 32
    bars: list[str] = []
    for scheduler in dict.fromkeys(case.scheduler for case in cases):
        row = {case.steps: case for case in cases if case.scheduler == scheduler}
        middle = y + len(row) * (_BAR + _GAP) / 2
        bars.append(_text(_LABELS - 8, middle + 3, scheduler, anchor="end"))
        for number in sorted(row):
            bars.append(_bar(row[number], _shade(steps.index(number), steps), scale, y))
            y += _BAR + _GAP
        y += _ROW_GAP
    for tick in range(ticks + 1):
        x = _LABELS + tick * unit * scale
        body.append(f"<path d='M{x:.1f} {first - 4} V{y:.1f}' stroke='#dddddd'/>")
        body.append(_text(x, y + 14, f"{tick * unit:g} s", anchor="middle"))
    body += bars
    return y + 34


def _bar(case: Case, colour: str, scale: float, y: float) -> str:
    spread = case.picture_seconds
    if spread is None:
        return _text(_LABELS + 4, y + _BAR - 2, f"{case.steps} steps: {case.failure}"[:100])
    end = _LABELS + spread.median * scale
    low, high = _LABELS + spread.min * scale, _LABELS + spread.max * scale
    middle = y + _BAR / 2
    return (
        f"<rect x='{_LABELS}' y='{y:.1f}' width='{end - _LABELS:.1f}' height='{_BAR}' "
        f"fill='{colour}'/>"
        f"<path d='M{low:.1f} {middle:.1f} H{high:.1f}' stroke='#d1495b' stroke-width='2'/>"
        + _text(max(end, high) + 5, y + _BAR - 2, f"{spread.median:.3g} s")
    )


def _shade(place: int, steps: Sequence[int]) -> str:
    """Spread over all shades, whatever the count."""
    last = max(1, len(steps) - 1)
    return _SHADES[round(place * (len(_SHADES) - 1) / last)]


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    power = 1.0
    while power > value:
        power /= 10
    while power * 10 <= value:
        power *= 10
    return next((power * step for step in (1, 2, 5) if power * step >= value), power * 10)


def _text(
    x: float, y: float, words: str, *, size: int = 11, weight: str = "normal", anchor: str = "start"
) -> str:
    return (
        f"<text x='{x:.1f}' y='{y:.1f}' {_FONT} font-size='{size}' font-weight='{weight}' "
        f"text-anchor='{anchor}' fill='#222222'>{escape(words)}</text>"
    )
