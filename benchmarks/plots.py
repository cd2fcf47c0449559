"""Lines over steps as SVG: what a benchmark's figures look like beside its result."""

import numpy as np

WIDTH, HEIGHT, MARGIN = 360, 240, 46
BETWEEN = 110
"""From one name of the legend to the next."""


def panels(charts, colours):
    """Panels side by side, two in a row, values from 0 to 1 over steps on a logarithmic axis.

    Args:
        charts: title -> {line's name: {steps: its values}}; a line goes through the means, a bar spans the values; a
            panel without lines is left out.
        colours: of the lines, by name; the legend has those that occur.
    """
    charts = {title: lines for title, lines in charts.items() if lines}
    used = [name for name in colours if any(name in lines for lines in charts.values())]
    steps = sorted({at for lines in charts.values() for line in lines.values() for at in line})
    low, high = np.log(min(steps)), np.log(max(steps) + 1)
    parts = [
        f'<text x="{MARGIN + at * BETWEEN}" y="18" fill="{colours[name]}">{name}</text>' for at, name in enumerate(used)
    ]
    for number, (title, lines) in enumerate(charts.items()):
        left, top = (number % 2) * (WIDTH + MARGIN) + MARGIN, (number // 2) * (HEIGHT + MARGIN) + MARGIN + 10
        x = {at: left + (np.log(at) - low) / max(high - low, 1e-9) * WIDTH for at in steps}
        parts.append(f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>')
        parts.append(f'<text x="{left}" y="{top - 8}">{title}</text>')
        parts += [f'<text x="{x[at]:.1f}" y="{top + HEIGHT + 16}" text-anchor="middle">{at}</text>' for at in steps]
        parts += [
            f'<text x="{left - 6}" y="{top + (1 - v) * HEIGHT + 4:.1f}" text-anchor="end">{v}</text>'
            for v in (0, 0.5, 1)
        ]
        for name in used:
            line = sorted(lines.get(name, {}).items())
            for at, values in line:
                ends = [top + (1 - value) * HEIGHT for value in (min(values), max(values))]
                parts.append(f'<path d="M{x[at]:.1f} {ends[0]:.1f}V{ends[1]:.1f}" stroke="{colours[name]}"/>')
            points = " ".join(f"{x[at]:.1f},{top + (1 - np.mean(values)) * HEIGHT:.1f}" for at, values in line)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
    wide, tall = 2 * (WIDTH + MARGIN) + MARGIN, -(-len(charts) // 2) * (HEIGHT + MARGIN) + MARGIN + 10
    return picture("\n".join(parts), wide, tall)


def picture(body, wide, tall):
    """The SVG of some markup, on white."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {tall}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
