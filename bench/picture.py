"""Line charts with logarithmic axes as SVG, on a background of their own, light or dark as the reader's page is."""
import math

COLOURS = [("#0b62c4", "#6cb2ff"), ("#c2410c", "#ff9d5c"), ("#15803d", "#5fd38d"), ("#7e22ce", "#c99bff")]
WIDTH, HEIGHT = 440, 330
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 64, 50


def style():
    def rules(which, paper, ink, faint):
        lines = [f".paper{{fill:{paper}}} text{{fill:{ink}}} .grid{{stroke:{faint}}}"]
        for number, colour in enumerate(COLOURS):
            lines.append(f".l{number}{{stroke:{colour[which]}}} .d{number}{{fill:{colour[which]}}}")
        return " ".join(lines)
    return ("<style>text{font:12px system-ui,sans-serif} .title{font-size:14px;font-weight:600} "
            ".line{fill:none;stroke-width:2} .grid{stroke-width:1} "
            f"{rules(0, '#ffffff', '#1f2328', '#d8dee4')} "
            f"@media (prefers-color-scheme: dark){{{rules(1, '#0d1117', '#e6edf3', '#30363d')}}}</style>")


def ticks_of(low, high):
    """1, 2 and 5 times powers of ten; only powers where those would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [factor * 10.0 ** power for power in powers for factor in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks if len(ticks) <= 9 else [tick for tick in ticks if math.log10(tick) % 1 < 1e-9]


def short(number):
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"


def chart(at, title, x_name, lines):
    """lines: {name: [(x, y), ...]}; at: pixels from the left."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    low, high = min(ys) / 1.25, max(ys) * 1.25
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(x):
        share = math.log(x / xs[0]) / math.log(xs[-1] / xs[0]) if xs[-1] > xs[0] else 0.5
        return at + LEFT + inner_width * share

    def down(y):
        return TOP + inner_height * (1 - math.log(y / low) / math.log(high / low))

    out = [f'<text class="title" x="{at + LEFT}" y="24">{title}</text>']
    for tick in ticks_of(low, high):
        out.append(f'<line class="grid" x1="{at + LEFT}" x2="{at + WIDTH - RIGHT}" y1="{down(tick):.1f}" '
                   f'y2="{down(tick):.1f}"/><text x="{at + LEFT - 8}" y="{down(tick) + 4:.1f}" '
                   f'text-anchor="end">{short(tick)}</text>')
    for x in xs:
        out.append(f'<text x="{across(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{at + LEFT + inner_width / 2}" y="{HEIGHT - 12}" text-anchor="middle">{x_name}</text>')
    key = at + LEFT + 8
    for number, (name, points) in enumerate(lines.items()):
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        out.append(f'<polyline class="line l{number}" points="{path}"/>')
        out += [f'<circle class="d{number}" cx="{across(x):.1f}" cy="{down(y):.1f}" r="3.5"/>' for x, y in points]
        out.append(f'<circle class="d{number}" cx="{key}" cy="{TOP - 20}" r="4"/>'
                   f'<text x="{key + 9}" y="{TOP - 16}">{name}</text>')
        key += 30 + 7 * len(name)
    return "\n".join(out)


def write(path, *charts):
    """charts: the arguments of chart() but for its place."""
    width = WIDTH * len(charts)
    body = "\n".join(chart(WIDTH * number, *one) for number, one in enumerate(charts))
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" '
                    f'height="{HEIGHT}" role="img">\n{style()}\n'
                    f'<rect class="paper" width="{width}" height="{HEIGHT}" rx="8"/>\n{body}\n</svg>\n')
