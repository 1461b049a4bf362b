"""Flags that several commands share, each with its check."""

from __future__ import annotations

import argparse
from pathlib import Path

PICTURES = (".png", ".svg", ".pdf")


def positive(text: str) -> int:
    try:
        value = int(text.replace("_", ""))
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return value


def crowds(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(positive(part.strip()) for part in text.split(",")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}: write the sizes of the crowds as 1,10,11,100") from error


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in PICTURES:
        raise argparse.ArgumentTypeError(
            f"{text!r} does not say which kind of picture: end it in {', '.join(PICTURES)}"
        )
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no directory {str(path.parent)!r} to put {path.name} in")
    return path


def add_users(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--users", type=crowds, metavar="N,N,...", help=f"sizes of the crowds ({default})")


def add_plot(parser: argparse.ArgumentParser) -> None:
    text = "draw answered share and p95 over users (png, svg or pdf)"
    parser.add_argument("--plot", type=picture, metavar="FILE", help=text)


def explain(parser: argparse.ArgumentParser, epilog: str) -> None:
    """Print `epilog` below the flags, with its own line breaks."""
    parser.epilog = epilog
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
