#!/usr/bin/env python3
"""usage: tests/bench/draw.py BENCH.json OUT.svg

Draws what scripts/bench has measured: processor time for each knock, success under floods, memory and latency.
"""
import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plot

matplotlib.rcParams["svg.hashsalt"] = "knockd-rs"

KNOCKD, OURS = "#b0b0b0", "#1f6fb4"


def bars(axes, title, unit, rows, log=False):
    """Two bars for each row: (label, knockd, ours)."""
    labels = [label for label, _, _ in rows]
    places = range(len(rows))
    width = 0.38
    for shift, color, name, column in ((-width / 2, KNOCKD, "knockd 0.8", 1), (width / 2, OURS, "knockd-rs", 2)):
        values = [row[column] for row in rows]
        drawn = axes.bar([place + shift for place in places], values, width, color=color, label=name)
        axes.bar_label(drawn, [f"{value:.3g}" for value in values], fontsize=7)
    if log:
        axes.set_yscale("log")
    axes.set_xticks(list(places), labels, fontsize=8)
    axes.set_title(f"{title} ({unit})", fontsize=9)
    axes.tick_params(axis="y", labelsize=7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = {row["what"]: row for row in json.load(file)}

    def pick(*wanted):
        return [(label, rows[what]["knockd_median"], rows[what]["ours_median"]) for what, label in wanted]

    figure, axes = plot.subplots(2, 2, figsize=(8.4, 5.6))
    attempts = [100, 1000, 10000, 50000]
    bars(
        axes[0][0], "Processor time per knock, by open attempts", "µs, log",
        pick(*((f"cpu: 2,000/s with {n} open attempts", f"{n:,}") for n in attempts)), log=True,
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
        axes[1][0], "From the last knock", "ms, log",
        pick(
            ("latency: last knock to execve of the shell", "to the shell"),
            ("latency: last knock to the effect of touch", "to what the command does"),
        ), log=True,
    )
    bars(
        axes[1][1], "Memory", "kB, log",
        pick(
            ("idle: proportional memory", "idle, proportional"),
            ("disk: program and libpcap", "on disk, with libpcap"),
            ("disk: with every library", "on disk, with all libraries"),
        ), log=True,
    )
    axes[0][0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
