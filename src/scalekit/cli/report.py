"""What a trial looks like: the table that grows while it runs, one line a crowd where there is no terminal, the end.

The live table is drawn by rich's own thread a few times a second from the tallies, so watching costs a call nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from scalekit.cli.crowd import Tally, percentile
from scalekit.cli.system import raise_open_files
from scalekit.cli.trial import Trial

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDTH = 100
_WIDE = 90
_HEADINGS = (
    "users",
    "answered",
    "failed",
    "upstream\ncalls",
    "429s",
    "p50",
    "p95",
    "wall",
    "tokens\npaid",
    "tokens\nsaved",
)


def console() -> Console:
    """Standard output; as wide as the table where it is no terminal."""
    from rich.console import Console

    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=_WIDTH)


def present(trial: Trial, main: Callable[[], None], screen: Console) -> bool:
    """Run `main`, which runs the trial, in view of the user; then print the table. False if Ctrl-C ended it."""
    raise_open_files(8192)
    interrupted = False
    try:
        with _watched(trial, screen):
            main()
    except KeyboardInterrupt:
        interrupted = True
    if trial.tallies:
        screen.print(table(trial.tallies, narrow=screen.width < _WIDE))
        for line in failures(trial.tallies):
            screen.print(line, style="red")
    if interrupted:
        screen.print("Interrupted: the crowd in grey is not complete.", style="yellow")
    return not interrupted


@contextmanager
def _watched(trial: Trial, screen: Console) -> Generator[None]:
    if not screen.is_terminal:
        yield
        return
    from rich.live import Live

    def now() -> Table:
        return table(trial.tallies, narrow=screen.width < _WIDE)

    with Live(console=screen, get_renderable=now, refresh_per_second=4, transient=True):
        yield


def announce(screen: Console) -> Callable[[Tally], None]:
    """What to do when a crowd is through: nothing in front of the live table, else print a line."""

    def line(tally: Tally) -> None:
        if not screen.is_terminal:
            done = f"{tally.answered:,} of {tally.planned:,} answered in {seconds(tally.wall)}"
            screen.print(f"{tally.subject:>9} · {tally.users:>5,} {plural('user', tally.users):<5} · {done}")

    return line


def code(lines: str, screen: Console) -> None:
    """Print Python, coloured where there are colours."""
    from rich.syntax import Syntax

    if screen.is_terminal:
        screen.print(Syntax(lines, "python", theme="ansi_dark", padding=(0, 0, 0, 4)), "", sep="\n")
    else:
        screen.print(textwrap.indent(lines, "    "), "", sep="\n", markup=False)


def picture(tallies: Sequence[Tally], file: Path, screen: Console) -> None:
    """Draw the complete crowds."""
    from scalekit.cli.plot import draw

    draw([tally for tally in tallies if tally.complete], file)
    screen.print(f"Drawn: {file}")


def table(tallies: Sequence[Tally], *, narrow: bool = False) -> Table:
    """A group of rows for each subject, a row for each crowd; `narrow` fits 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, 0 if narrow else 1, 0, 0), pad_edge=False)
    for heading in _HEADINGS:
        drawn.add_column(heading, justify="right", no_wrap=True)
    order = dict.fromkeys(tally.subject for tally in tallies)
    grouped = sorted(tallies, key=lambda tally: list(order).index(tally.subject))
    for subject, group in groupby(grouped, key=lambda tally: tally.subject):
        drawn.add_row(Text(subject, style="bold", justify="left"))
        for tally in group:
            drawn.add_row(*_cells(tally), style=None if tally.complete else "dim")
        drawn.add_section()
    return drawn


def _cells(tally: Tally) -> list[str]:
    failed = f"{tally.failed:,}"
    answered = f"{tally.answered:,}"
    upstream = tally.upstream
    return [
        f"{tally.users:,}",
        f"[green]{answered}[/]" if tally.answered == tally.planned else answered,
        f"[red]{failed}[/]" if tally.failed else failed,
        number(upstream.calls),
        number(upstream.rejected),
        seconds(percentile(tally.seconds, 0.50)),
        seconds(percentile(tally.seconds, 0.95)),
        seconds(tally.wall),
        compact(upstream.tokens),
        compact(tally.saved),
    ]


def failures(tallies: Sequence[Tally]) -> Iterator[str]:
    """A line for each crowd in which something failed, by type of exception."""
    for tally in tallies:
        if tally.failures:
            kinds = ", ".join(f"{kind} × {count:,}" for kind, count in tally.failures.most_common())
            yield f"{tally.subject}, {tally.users:,} {plural('user', tally.users)}: {kinds}"


def plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 0.0095:
        return f"{value * 1e3:.1f} ms" if value >= 0.00095 else f"{value * 1e6:.0f} µs"
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    return f"{value:.1f} s"


def compact(value: int | None) -> str:
    """Three digits and a letter: tokens are read for their size."""
    if value is None:
        return "-"
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return str(value)
