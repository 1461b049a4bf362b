"""Bytes outlive the process that wrote them: fresh interpreters, also other versions, read and write the same."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from interpreters import SRC, pythons, run

from scalekit._cache.codec import Codec
from scalekit.errors import CodecError

PROGRAM = """
import base64, json
from scalekit._cache.codec import Codec
import answers

codec = Codec("ask", answers.ask, errors=[answers.Over])
given = json.loads(GIVEN)
if given:
    values = [codec.decode(base64.b64decode(text)) for text in given["values"]]
    assert [type(value) for value in values] == [type(value) for value in answers.VALUES], values
    assert values == answers.VALUES, values
    assert list(map(repr, values)) == list(map(repr, answers.VALUES)), values
    error = codec.decode_error(base64.b64decode(given["error"]))
    assert (type(error), str(error), error.limit) == (answers.Over, "over 3", 3)
written = [base64.b64encode(codec.encode(value)).decode() for value in answers.VALUES]
print(json.dumps({"values": written, "error": base64.b64encode(codec.encode_error(answers.Over(limit=3))).decode()}))
"""

ANSWERS = """
from __future__ import annotations
import collections, dataclasses, datetime, decimal, enum, fractions, pathlib, uuid
from typing import NamedTuple

class Colour(enum.Enum):
    RED = 1

class Rights(enum.Flag):
    READ = 1
    WRITE = 2

@dataclasses.dataclass(slots=True)
class Leaf:
    colour: Colour
    rights: Rights

class Row(NamedTuple):
    leaf: Leaf
    n: int = 0

class Over(Exception):
    def __init__(self, *, limit):
        super().__init__(f"over {limit}")
        self.limit = limit

def ask() -> dict[str, list[Row]]: ...

VALUES = [
    None, 2**70, -1, float("inf"), "\\ud800é", b"x", bytearray(b"y"), (1, [2]), {3}, frozenset({"a"}), range(5),
    {(1, 2): {"k": ()}}, 1j, datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc),
    datetime.datetime(2026, 10, 25, 2, 30, fold=1), datetime.date(2026, 1, 2),
    datetime.time(1, 2), datetime.timedelta(1),
    datetime.timezone(datetime.timedelta(hours=2), "X"), uuid.UUID(int=7),
    decimal.Decimal("1.10"), fractions.Fraction(1, 3),
    pathlib.PurePosixPath("/a/b"), pathlib.Path("x"), collections.deque([1], 2), collections.OrderedDict(a=1),
    collections.Counter("aab"), collections.defaultdict(list, a=[1]),
    {"rows": [Row(Leaf(Colour.RED, Rights.READ | Rights.WRITE), 5)]},
]
"""


def capable() -> list[str]:
    """The running interpreter, and those others that have msgspec."""
    check = "import msgspec"
    others = [
        p for p in pythons()[1:] if not subprocess.run([p, "-c", check], capture_output=True, check=False).returncode
    ]
    return [sys.executable, *others]


def test_every_process_and_python_reads_what_another_wrote(tmp_path: Path) -> None:
    """Each writes, and each reads what every other wrote, whatever its hash seed."""
    (tmp_path / "answers.py").write_text(ANSWERS)
    interpreters = capable()
    written = [run(p, f"GIVEN = 'null'\n{PROGRAM}", seed, tmp_path) for seed, p in enumerate(interpreters, 1)]
    for given in written:
        for seed, python in enumerate(interpreters, 7):
            run(python, f"GIVEN = {json.dumps(given)!r}\n{PROGRAM}", seed, tmp_path)


SCRIPT = """
import base64, dataclasses, sys
from scalekit._cache.codec import Codec

@dataclasses.dataclass
class Answer:
    text: str

def ask() -> Answer: ...

if __name__ == "__main__":
    codec = Codec("ask", ask)
    if len(sys.argv) > 1:
        print(codec.decode(base64.b64decode(sys.argv[1])))
    else:
        print(base64.b64encode(codec.encode(Answer("a"))).decode())
"""

IMPORTER = "import sys, base64, script; print(script.Codec('ask', script.ask).decode(base64.b64decode(sys.argv[1])))"
WRITER = "import base64, script; print(base64.b64encode(script.Codec('ask').encode(script.Answer('a'))).decode())"


def test_a_script_and_who_imports_it_read_each_other(tmp_path: Path) -> None:
    """A class of `__main__` has the name that it has when its script is imported."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def output(*arguments: str) -> str:
        env = {"PYTHONPATH": f"{SRC}:{tmp_path}"}
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    by_script, by_importer = output(str(script)), output("-c", WRITER)
    assert by_script == by_importer
    assert output(str(script), by_importer) == output("-c", IMPORTER, by_script) == "Answer(text='a')"
    assert output("-m", "script", by_importer) == "Answer(text='a')"


def test_an_unreached_class_is_a_miss_in_another_process(tmp_path: Path) -> None:
    """What only the writer's process has leave for is an error elsewhere, and no import brings it in."""
    (tmp_path / "answers.py").write_text(ANSWERS)
    written = run(sys.executable, f"GIVEN = 'null'\n{PROGRAM}", 1, tmp_path)
    with pytest.raises(CodecError, match="answers:Colour"):
        Codec("ask").decode(base64.b64decode(written["values"][-1]))
    assert "answers" not in sys.modules
