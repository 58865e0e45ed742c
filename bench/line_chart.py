"""Lines over sizes (1,000 to a million, say) as SVG, in the look of the pictures in docs/images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 360, 56, 130, 24, 44
_COLOURS = ("#1f6feb", "#bc4c00", "#1a7f37", "#8250df", "#cf222e", "#0a7ea4")
#: Most lines of the grid.
_STEPS = 12


def line_chart(title: str, below: str, sizes: Sequence[int], lines: Mapping[str, Sequence[float | None]]) -> str:
    """Each line has a value for each size, None where there is none; `below` says what the axes are."""
    most = math.ceil(max(value for line in lines.values() for value in line if value is not None) * 1.15)
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])

    def x(size: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (math.log10(size) - first) / ((last - first) or 1)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / most

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"',
        'font-family="sans-serif" font-size="13">',
        f"<title>{title}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
    ]
    for value in range(0, most + 1, -(-most // _STEPS)):
        drawn.append(f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#d0d7de"/>')
        drawn.append(f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#57606a">{value}</text>')
    drawn += [
        f'<text x="{x(size):.1f}" y="{_HEIGHT - 24}" text-anchor="middle" fill="#57606a">{size:,}</text>'
        for size in sizes
    ]
    drawn.append(f'<text x="{_LEFT}" y="{_HEIGHT - 6}" fill="#57606a">{below}</text>')
    placed = -math.inf
    colours = dict(zip(lines, _COLOURS, strict=False))
    for name, line in sorted(lines.items(), key=lambda item: -next(v for v in reversed(item[1]) if v is not None)):
        points = [(x(size), y(value)) for size, value in zip(sizes, line, strict=True) if value is not None]
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        drawn += [f'<circle cx="{a:.1f}" cy="{d:.1f}" r="3" fill="{colours[name]}"/>' for a, d in points]
        placed = max(points[-1][1] + 4, placed + 16)
        drawn.append(f'<text x="{_WIDTH - _RIGHT + 10}" y="{placed:.1f}" fill="{colours[name]}">{name}</text>')
    return "\n".join([*drawn, "</svg>"]) + "\n"
