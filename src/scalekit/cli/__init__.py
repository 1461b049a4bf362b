"""The `scalekit` command. A subcommand is a file of its own name with `configure(parser)` and `run(arguments)`.

Only the module of the chosen subcommand is imported, so `scalekit --help` needs nothing beyond the base install.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from scalekit.cli.system import Refused

COMMANDS = {
    "demo": "a real agent before growing crowds of users, plain and decorated",
    "load": "the same table for your own function",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser("scalekit", description="Agent functions that survive their eleventh user.")
    parser.add_argument("--version", action="version", version=f"scalekit {_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if words[:1] == [name]:
            module = importlib.import_module(f"scalekit.cli.{name}")
            module.configure(command)
            command.set_defaults(run=module.run)
    arguments = parser.parse_args(words)
    try:
        code: int = arguments.run(arguments)
        return code
    except Refused as refusal:
        print(f"scalekit {words[0]}: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _version() -> str:
    try:
        return importlib.metadata.version("agent-scalekit")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
