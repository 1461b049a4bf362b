"""Other Pythons on this machine, for promises that hold across processes and versions.

`SCALEKIT_TEST_PYTHONS` names interpreters (separated as in PATH); else those of pyenv are taken. The running one is
always there. They have no third-party packages, so the package's own `__init__` is stepped over.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
SRC = Path(__file__).parent.parent / "src"
PREAMBLE = f"""
import sys, types
for name in ("scalekit", "scalekit._cache"):
    package = types.ModuleType(name)
    package.__path__ = [{str(SRC)!r} + "/" + name.replace(".", "/")]
    sys.modules[name] = package
"""


def pythons() -> list[str]:
    """The running interpreter, and one of each other supported version that is found."""
    named = os.environ.get("SCALEKIT_TEST_PYTHONS")
    if named:
        return [sys.executable, *named.split(os.pathsep)]
    found = {version: sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")) for version in SUPPORTED}
    running = f"3.{sys.version_info.minor}"
    return [sys.executable, *[str(paths[-1]) for version, paths in found.items() if paths and version != running]]


def run(python: str, program: str, hash_seed: int, *paths: Path) -> Any:
    """What `program` printed as JSON when that interpreter ran it, with `paths` to import from."""
    env = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run([python, "-c", PREAMBLE + program], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
