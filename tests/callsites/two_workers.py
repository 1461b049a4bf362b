"""A web service of two worker processes on one machine that share what they computed.

The owner sets one environment variable, changes no decorator, and expects that what one worker paid for the other one
has, and that an edit which one worker handles is seen by the other one at its next request, also where that had
the old answer in memory.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import scalekit


@scalekit.cache(ttl="1h", tags="page:{page}", version="1")
def render(page: str, folder: str) -> str:
    text = Path(folder, page).read_text()
    print("rendered", flush=True)
    return text.upper()


def worker(folder: str) -> None:
    for line in sys.stdin:
        command, page = line.split()
        if command == "get":
            print(render(page, folder), flush=True)
        elif command == "edited":
            print(scalekit.controls(render).cache.invalidate(page, folder), flush=True)
        elif command == "retagged":
            scalekit.controls(render).cache.invalidate_tags(f"page:{page}")
            print("done", flush=True)


class Worker:
    def __init__(self, folder: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__, folder],
            env={**os.environ, "SCALEKIT_DISK_DIR": str(Path(folder, "cache"))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: str, lines: int = 1) -> list[str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return [self.process.stdout.readline().strip() for _ in range(lines)]

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(30) == 0
        assert self.process.stdout is not None
        self.process.stdout.close()


def main() -> None:
    if len(sys.argv) > 1:
        worker(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "home")
        page.write_text("first")
        one, two = Worker(folder), Worker(folder)
        assert one.ask("get", "home", lines=2) == ["rendered", "FIRST"]
        time.sleep(0.5)  # writes to the disk are behind the answer, by some milliseconds
        assert two.ask("get", "home") == ["FIRST"], "paid twice"

        page.write_text("second")
        assert two.ask("get", "home") == ["FIRST"]
        assert one.ask("edited", "home") == ["True"]
        assert two.ask("get", "home", lines=2) == ["rendered", "SECOND"], "an old answer after the edit"

        page.write_text("third")
        assert two.ask("retagged", "home") == ["done"]
        assert one.ask("get", "home", lines=2) == ["rendered", "THIRD"], "an old answer after the edit"
        one.stop()
        two.stop()


if __name__ == "__main__":
    main()
