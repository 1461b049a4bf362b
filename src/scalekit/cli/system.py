"""What the commands ask of the machine: sockets for a thousand users, and packages beyond the base install."""

from __future__ import annotations

import importlib.util
import sys

EXTRA = 'pip install "agent-scalekit[cli]"'


class Refused(Exception):
    """A command cannot run as asked; the message says why and what to do. Exit code 2."""


def require(*modules: str) -> None:
    """Refuse in one line if a package of the `cli` extra is missing, before any work is done."""
    missing = [name for name in modules if not _installed(name)]
    if missing:
        raise Refused(f"this needs {' and '.join(missing)}, which the base install leaves out: {EXTRA}")


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # sys.modules[name] is None or has no spec
        return False


def raise_open_files(wanted: int) -> int:
    """Raise the soft limit of open files towards `wanted`; the number that is allowed now."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (ValueError, OSError):
        return soft
    return target
