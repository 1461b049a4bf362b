"""An OpenAI-compatible provider in a process of its own, for the demo and for tests that need a real one.

    with Provider(Settings(slots=10)) as provider:
        client = openai.AsyncOpenAI(base_url=provider.base_url, api_key="demo")

`state` decides and `answers` speaks (both pure), `wire` is HTTP, `service` joins them, `__main__` is the process. It
needs a process because it would otherwise share the event loop, and the GIL, of the program whose latency is measured.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from types import TracebackType
from typing import IO, Any, Self

from scalekit.cli.provider.state import Settings

__all__ = ["Provider", "ProviderFailed", "Settings"]


class ProviderFailed(RuntimeError):
    """The provider's process did not start, or does not answer any more."""


class Provider:
    """Starts the process on entry and ends it on exit; it also ends by itself when this process dies."""

    def __init__(self, settings: Settings | None = None, *, start_timeout: float = 30.0) -> None:
        self.settings = settings or Settings()
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> Self:
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in vars(self.settings).items()]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "scalekit.cli.provider", *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the harness alone, which may still want the counts
        )
        try:
            self._port = json.loads(self._first_line())["port"]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def pid(self) -> int:
        return self._running().pid

    def stats(self) -> dict[str, int]:
        """What happened since the last reset: the fields of `state.Counts`."""
        counts: dict[str, int] = self._ask("GET", "/stats")
        return counts

    def reset(self) -> None:
        """Zero the counts, refill the quotas, start the draws again from the seed."""
        self._ask("POST", "/reset")

    def _ask(self, method: str, path: str) -> Any:
        self._running()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request(method, path)
            return json.loads(connection.getresponse().read())
        except OSError as error:
            raise ProviderFailed(f"the provider on port {self._port} does not answer {path}: {error}") from error
        finally:
            connection.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ProviderFailed("the provider is not running: use it in a `with` block")
        return self._process

    def _first_line(self) -> bytes:
        process = self._running()
        out, errors = _pipe(process.stdout), _pipe(process.stderr)
        watchdog = threading.Timer(self._start_timeout, process.kill)
        watchdog.start()
        try:
            line = out.readline()
        finally:
            watchdog.cancel()
        if not line:
            process.wait()
            told = errors.read().decode(errors="replace").strip() or "it said nothing"
            raise ProviderFailed(f"the provider did not start (exit code {process.returncode}): {told}")
        return line

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _pipe(process.stdin).close()
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            _pipe(process.stdout).close()
            _pipe(process.stderr).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the process is always started with pipes"
    return stream
