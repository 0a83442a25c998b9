#!/usr/bin/env python3
"""usage: tests/bench/draw.py BENCH.json OUT.svg

Draws the results of scripts/bench: CPU time per knock, success under floods, memory and latency.
"""
import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plot

matplotlib.rcParams["svg.hashsalt"] = "knockd-rs"

KNOCKD, OURS = "#b0b0b0", "#1f6fb4"


def finish(axes, title, unit):
    axes.set_title(f"{title} ({unit})", fontsize=9)
    axes.tick_params(axis="y", labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def bars(axes, title, unit, rows):
    """Two bars for each row: (label, knockd, ours)."""
    labels = [label for label, _, _ in rows]
    places = range(len(rows))
    width = 0.38
    for shift, color, name, column in ((-width / 2, KNOCKD, "knockd 0.8", 1), (width / 2, OURS, "knockd-rs", 2)):
        values = [row[column] for row in rows]
        drawn = axes.bar([place + shift for place in places], values, width, color=color, label=name)
        texts = [f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in values]
        axes.bar_label(drawn, texts, fontsize=7)
    axes.set_xticks(list(places), labels, fontsize=8)
    finish(axes, title, unit)


def lines(axes, title, unit, rows):
    """A line for each daemon through the rows: (x, knockd, ours). Both axes are logarithmic."""
    for color, name, column, above in ((KNOCKD, "knockd 0.8", 1, 5), (OURS, "knockd-rs", 2, -12)):
        values = [row[column] for row in rows]
        axes.plot([row[0] for row in rows], values, marker="o", color=color, label=name)
        for row in rows:
            place = {"xytext": (0, above), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"{row[column]:.3g}", (row[0], row[column]), fontsize=7, **place)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=1)
    axes.set_xticks([row[0] for row in rows], [f"{row[0]:,}" for row in rows], fontsize=8)
    axes.minorticks_off()
    finish(axes, title, unit)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = {row["what"]: row for row in json.load(file)}

    def pick(*wanted):
        return [(label, rows[what]["knockd_median"], rows[what]["ours_median"]) for what, label in wanted]

    figure, axes = plot.subplots(2, 2, figsize=(8.4, 5.6))
    attempts = [100, 1000, 10000, 50000]
    lines(
        axes[0][0], "Processor time per knock, by open attempts", "µs",
        pick(*((f"cpu: 2,000/s with {n} open attempts", n) for n in attempts)),
    )
    bars(
        axes[0][1], "Knocks that succeed among spoofed ones", "%",
        pick(
            ("success: knock among 1000 spoofed sources, 1000/s", "1,000 a second"),
            ("success: knock among 10000 spoofed sources, 20000/s", "20,000 a second,\n10,000 sources"),
            ("success: knock among 100000 spoofed sources, 20000/s", "20,000 a second,\n100,000 sources"),
        ),
    )
    bars(
        axes[1][0], "From the last knock", "ms",
        pick(
            ("latency: last knock to execve of the shell", "to the shell"),
            ("latency: last knock to the effect of touch", "to what the command does"),
        ),
    )
    bars(
        axes[1][1], "Room", "kB",
        pick(
            ("idle: proportional memory", "memory, idle"),
            ("disk: program and libpcap", "disk, with libpcap"),
            ("disk: with every library", "disk, with all libraries"),
        ),
    )
    axes[0][0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
