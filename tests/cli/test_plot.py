"""The picture."""

from __future__ import annotations

from pathlib import Path

import pytest

from scalekit.cli.crowd import Tally
from scalekit.cli.plot import draw, tick_labels

pytest.importorskip("matplotlib")


def tallies() -> list[Tally]:
    drawn: list[Tally] = []
    for subject, answered in (("plain", (5, 0)), ("decorated", (5, 50))):
        for users, count in zip((1, 10), answered, strict=True):
            drawn.append(Tally(subject, users, users * 5, seconds=[0.1] * count, ended=1.0, complete=True))
    return drawn


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_the_suffix_says_which_picture(tmp_path: Path, suffix: str, start: bytes) -> None:
    """png, svg and pdf are drawn, also where a crowd got no answer at all."""
    file = tmp_path / f"curve.{suffix}"
    draw(tallies(), file)
    assert file.read_bytes().startswith(start)


def test_near_crowds_share_a_label() -> None:
    """10 and 11 users are one label on a log axis."""
    assert [text for _, text in tick_labels([1, 10, 11, 100, 1000])] == ["1", "10, 11", "100", "1,000"]
