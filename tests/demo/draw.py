"""Reads the output of scripts/demo from a pipe, as it comes, and writes an SVG that plays it.

Each line appears when it came; longer pauses are cut to PAUSE seconds. The picture has real text,
follows the reader's light or dark theme, and stands still for those who prefer no motion.
"""

import html
import sys
import time

FIRST = "4. "  # What is set up before is not shown.
LAST = "9. "
PAUSE = 1.5
HOLD = 6  # How long the last line stays before it begins again, in seconds.
LINE, MARGIN, WIDTH = 18, 16, 620

STYLE = """
    text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #24292f; white-space: pre }
    .frame { fill: #f6f8fa; stroke: #d0d7de }
    .step { font-weight: 600 }
    .command { fill: #0550ae }
    .result { fill: #116329 }
    @media (prefers-color-scheme: dark) {
      text { fill: #c9d1d9 }
      .frame { fill: #161b22; stroke: #30363d }
      .command { fill: #79c0ff }
      .result { fill: #7ee787 }
    }
    @media (prefers-reduced-motion: reduce) { text { animation: none !important } }
"""


def read():
    """The lines of the steps to show, each with its time in seconds."""
    lines, shown, clock, last = [], False, 0.0, None
    for line in sys.stdin:
        now = time.monotonic()
        line = line.rstrip("\n")
        if line.startswith(FIRST):
            shown, last = True, now
        elif line.startswith(LAST):
            shown = False
        if shown:
            clock += min(now - last, PAUSE) + 0.15
            last = now
            lines.append((clock, line))
        print(line, file=sys.stderr)
    while lines and not lines[-1][1]:
        lines.pop()
    if not lines:
        sys.exit("the demo printed no step to show")
    return lines


def kind(line):
    if line[:1].isdigit():
        return "step"
    return "command" if "$ " in line else "result" if "->" in line or "OPEN SESAME" in line else ""


def draw(lines):
    total = lines[-1][0] + HOLD
    height = len(lines) * LINE + 2 * MARGIN
    rules, texts = [], []
    for number, (at, line) in enumerate(lines):
        start = 100 * at / total
        rules.append(
            f"    @keyframes l{number} {{ 0%, {start:.2f}% {{ opacity: 0 }} {start + 0.3:.2f}%, 100% {{ opacity: 1 }} }}"
        )
        if line:
            texts.append(
                f'  <text class="{kind(line)}" x="{MARGIN}" y="{MARGIN + LINE * (number + 1) - 5}"'
                f' style="animation: l{number} {total:.1f}s infinite">{html.escape(line)}</text>'
            )
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title desc">\n'
        "  <title id=\"title\">knockd-rs: a knock opens SSH for 15 seconds</title>\n"
        "  <desc id=\"desc\">Output of scripts/demo. nmap finds no open port; after a knock SSH reaches a host on the LAN,"
        " but not from another address; after 15 seconds no port is open again.</desc>\n"
        f"  <style>{STYLE}" + "\n".join(rules) + "\n  </style>\n"
        f'  <rect class="frame" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>\n'
        + "\n".join(texts)
        + "\n</svg>"
    )


draw(read())
