"""The picture of a trial: who is answered, and how long the slow ones waited, over the size of the crowd."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scalekit.cli.crowd import Tally, percentile

INK, GRID = "#333333", "#e4e4e4"
COLOURS = {"plain": "#d1495b", "decorated": "#00798c"}


def draw(tallies: Sequence[Tally], file: Path) -> None:
    """Two panels with one curve for each subject; the suffix of `file` says which kind of picture."""
    mpl: Any = importlib.import_module("matplotlib")
    mpl.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    style = {
        "font.size": 12,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.fonttype": "none",
    }
    with mpl.rc_context(style):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)
        try:
            _panel(left, tallies, "Questions answered", lambda tally: 100 * tally.answered / tally.planned, 100)
            left.yaxis.set_major_formatter("{x:.0f} %")
            _panel(right, tallies, "Wait of those answered, 95th percentile", _p95, 0)
            right.yaxis.set_major_formatter("{x:g} s")
            figure.savefig(file, dpi=160)
        finally:
            pyplot.close(figure)


def _p95(tally: Tally) -> float | None:
    return percentile(tally.seconds, 0.95)


def _panel(axes: Any, tallies: Sequence[Tally], title: str, value: Callable[[Tally], float | None], top: float) -> None:
    axes.set_title(title, loc="left", pad=16, fontsize=13)
    axes.set_xscale("log")
    ends: list[tuple[float, float, str]] = []
    for subject in dict.fromkeys(tally.subject for tally in tallies):
        points = [(tally.users, value(tally)) for tally in tallies if tally.subject == subject]
        known = [(x, y) for x, y in points if y is not None]
        if known:
            colour = COLOURS.get(subject, INK)
            xs, ys = [x for x, _ in known], [y for _, y in known]
            axes.plot(
                xs, ys, color=colour, linewidth=2.4, marker="o", markersize=7, mec="white", clip_on=False, zorder=3
            )
            ends.append((ys[-1], xs[-1], subject))
            top = max(top, *ys)
    axes.set_ylim(0, top * 1.05)
    _name(axes, sorted(ends), apart=top * 0.085)
    axes.set_xlabel("users at once", labelpad=8)
    labels = tick_labels(sorted({tally.users for tally in tallies}))
    axes.set_xticks([at for at, _ in labels], [text for _, text in labels])
    axes.minorticks_off()
    axes.tick_params(length=0, pad=7)
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.margins(x=0.05)


def _name(axes: Any, ends: Sequence[tuple[float, float, str]], apart: float) -> None:
    """Write each subject's name at the end of its curve, lifted where it would cover the one below."""
    lowest = -math.inf
    for y, x, subject in ends:
        lowest = max(y, lowest + apart)
        colour = COLOURS.get(subject, INK)
        shift = (14, 0)
        axes.annotate(
            subject, (x, lowest), shift, textcoords="offset points", color=colour, va="center", annotation_clip=False
        )


def tick_labels(users: Sequence[int]) -> list[tuple[float, str]]:
    """Where the labels of a log axis stand: crowds that are too near for two labels share one."""
    clusters: list[list[int]] = []
    for count in users:
        if clusters and count < clusters[-1][-1] * 1.4:
            clusters[-1].append(count)
        else:
            clusters.append([count])
    return [(math.sqrt(group[0] * group[-1]), ", ".join(f"{count:,}" for count in group)) for group in clusters]
