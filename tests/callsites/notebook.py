"""A notebook: cells run one by one in `__main__`, while the kernel's event loop runs.

Its author edits a function and runs the cell again, calls sync functions at top level and awaits there too. They
expect the answer of the function as it stands now, hits when a cell is run twice, no "loop is already running", and no
hang when a sync call meets a task of the same loop: an error says what to do.
"""

import ast
import asyncio
import inspect
import linecache
import sys
import types

CELLS = [
    """
import asyncio, time
import scalekit
calls = []
model_calls = scalekit.limit(concurrency=1)
""",
    """
@scalekit.cache(ttl="1h")
def label(text: str) -> str:
    calls.append(text)
    return text.upper()
""",
    "first = [label(text) for text in ['good', 'bad', 'good']]",
    "again = [label(text) for text in ['good', 'bad', 'good']]",
    """
@scalekit.cache(ttl="1h")
def label(text: str) -> str:
    calls.append(text)
    return text.title()
""",
    "edited = [label(text) for text in ['good', 'bad', 'good']]",
    """
@model_calls
async def ask(question: str) -> str:
    await asyncio.sleep(0.01)
    return question + "!"

@model_calls
def count(text: str) -> int:
    return len(text)
""",
    "counted = count('sync, on the thread of the loop')",
    "answers = await asyncio.gather(*(ask(q) for q in 'abc'))",
    """
task = asyncio.create_task(ask("background"))
await asyncio.sleep(0)
try:
    count("the task holds the only permit and cannot go on while we block its loop")
except scalekit.ScalekitError as error:
    refusal = str(error)
background = await task
""",
    "recounted = count('free again')",
    "source = __import__('inspect').getsource(label)",
]


async def run(cells: list[str]) -> dict[str, object]:
    """What a kernel does: one module called `__main__`, each cell compiled for itself, top-level `await` allowed."""
    notebook = types.ModuleType("__main__")
    sys.modules["__main__"] = notebook
    for number, cell in enumerate(cells, 1):
        name = f"<ipython-input-{number}>"
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        code = compile(cell, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, vars(notebook))
        if inspect.isawaitable(result):
            await result
    return vars(notebook)


def main() -> None:
    seen = asyncio.run(run(CELLS))
    assert seen["first"] == seen["again"] == ["GOOD", "BAD", "GOOD"]
    assert seen["edited"] == ["Good", "Bad", "Good"], "an answer of the function as it was"
    assert seen["calls"] == ["good", "bad"] * 2, seen["calls"]
    assert seen["counted"] == 31
    assert seen["answers"] == ["a!", "b!", "c!"]
    assert seen.get("refusal"), "the loop waited for itself"
    assert seen["background"] == "background!"
    assert seen["recounted"] == 10
    assert "text.title()" in str(seen["source"])


if __name__ == "__main__":
    main()
