"""Horizontal bars of races, for a page of the documentation. Needs matplotlib."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from _rounds import Race

__all__ = ["bars"]

INK, GRID, QUIET, LOUD = "#333333", "#e4e4e4", "#c3cad1", "#00798c"


def bars(rows: Sequence[Sequence[Race]], ours: str, about: str, file: Path) -> None:
    """One logarithmic axis for all, a block for each race, the fastest on top and ours in colour."""
    mpl: Any = importlib.import_module("matplotlib")
    mpl.use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    lines = [max(len(race.names) for race in row) for row in rows]
    shown = [*chain(*rows)]
    times = [race.time(name).median * 1e6 for race in shown for name in race.names]
    style = {"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    with mpl.rc_context({**style, "svg.fonttype": "none", "svg.hashsalt": "bars"}):
        figure, panels = pyplot.subplots(
            *(len(rows), len(rows[0])),
            figsize=(10.5, 0.26 * sum(lines) + 0.42 * len(lines) + 0.8),
            height_ratios=[count + 1 for count in lines],
            layout="constrained",
            squeeze=False,
        )
        figure.get_layout_engine().set(wspace=0.06, hspace=0.03, w_pad=0.1, h_pad=0.06)
        ticks = [10.0**power for power in range(math.floor(math.log10(min(times))), 7) if 10.0**power < 2 * max(times)]
        for axes, race in zip(panels.flat, shown, strict=True):
            _block(axes, race, ours)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set_xlim(ticks[0], 2.2 * max(times))
            axes.minorticks_off()
        for axes in panels[-1]:
            axes.tick_params(axis="x", labelbottom=True, pad=5)
        figure.supxlabel(f"µs a call, less is better; the axis is logarithmic. {about}", fontsize=9, color=INK)
        figure.savefig(file, dpi=160, metadata={"Date": None} if file.suffix == ".svg" else None)
        pyplot.close(figure)


def _block(axes: Any, race: Race, ours: str) -> None:
    medians = sorted((race.time(name).median * 1e6, name) for name in race.names)
    colours = [LOUD if name.startswith(ours) else INK for _, name in medians]
    fills = [LOUD if colour == LOUD else QUIET for colour in colours]
    axes.barh(range(len(medians)), [median for median, _ in medians], height=0.74, color=fills)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.grid(axis="x", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(medians)), [name for _, name in medians])
    for place, ((median, _), label, colour) in enumerate(zip(medians, axes.get_yticklabels(), colours, strict=True)):
        weight = "bold" if colour == LOUD else "normal"
        label.set(color=colour, weight=weight)
        text = f"{median:.0f}" if median >= 10 else f"{median:.1f}" if median >= 1 else f"{median:.2f}"
        at: dict[str, Any] = {"xy": (median, place), "xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        at["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.annotate(text, **at, color=colour, weight=weight)
    axes.set_title(race.title, loc="left", fontsize=11, weight="bold", pad=4)
    axes.tick_params(length=0, labelbottom=False)
    axes.spines[:].set_visible(False)
