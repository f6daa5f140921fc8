"""Draw the figures in results.json as bars: ``python benchmarks/plot.py > docs/speed.svg``.

The drawing has a background of its own, so that it can be read on a light and on a dark page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

RESULTS = Path(__file__).resolve().with_name("results.json")
#: The columns of results.json that are drawn, with a title.
PANELS = {
    "5 ms per reply, PIPELINING": "Delivered per second, to a server on the network",
    "send(), one by one": "Queued per second, one send() after the other",
}
#: Sizes in pixels.
WIDTH, MARGIN, NAMES, ROW, BAR, TITLE = 760, 24, 250, 26, 16, 40
#: The widest bar, which leaves space for a figure behind it.
WIDEST = WIDTH - 2 * MARGIN - NAMES - 50
OURS, OTHERS = "#2563eb", "#94a3b8"
STYLE = "text{font:13px DejaVu Sans,Verdana,sans-serif;fill:#0f172a}.title{font-weight:bold}.name{text-anchor:end}"


def svg(results: dict[str, dict[str, float]]) -> Iterator[str]:
    """Yield the lines of the drawing."""
    heights = [TITLE + ROW * len(results[column]) + MARGIN for column in PANELS]
    height = MARGIN + sum(heights)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    yield f"<style>{STYLE}</style>"
    yield f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#f8fafc"/>'
    top = MARGIN
    for (column, title), panel in zip(PANELS.items(), heights, strict=True):
        yield f'<text class="title" x="{MARGIN}" y="{top + 16}">{escape(title)}</text>'
        yield from bars(results[column], top + TITLE)
        top += panel
    yield "</svg>"


def bars(rates: dict[str, float], top: float) -> Iterator[str]:
    """Yield one bar for each contender, the fastest first."""
    left, most = MARGIN + NAMES, max(rates.values())
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        colour = OURS if name.startswith("this package") else OTHERS
        width, base = max(round(WIDEST * rate / most), 1), top + BAR - 3
        yield f'<text class="name" x="{left - 10}" y="{base}">{escape(name)}</text>'
        yield f'<rect x="{left}" y="{top}" width="{width}" height="{BAR}" rx="2" fill="{colour}"/>'
        yield f'<text x="{left + width + 6}" y="{base}">{rate:,.0f}</text>'
        top += ROW


if __name__ == "__main__":
    print(*svg(json.loads(RESULTS.read_text(encoding="utf-8"))), sep="\n", file=sys.stdout)
