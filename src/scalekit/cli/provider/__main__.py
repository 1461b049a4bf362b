"""The provider's process: `python -m scalekit.cli.provider [flags]`.

It prints one line of JSON (`port`, `base_url`) when it listens, and leaves no orphan: it ends on SIGTERM and SIGINT,
when its standard input closes (the pipe its parent holds; the kernel closes it even after `kill -9`), and when its
parent's process id changes (for parents that gave it no pipe).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from scalekit.cli.provider.service import Service
from scalekit.cli.provider.state import Settings, State
from scalekit.cli.provider.wire import Connection
from scalekit.cli.system import raise_open_files

_HELP = {
    "slots": "calls in progress at once; one more gets a 429",
    "median": "median seconds of a call",
    "sigma": "spread of the log-normal latency; 0 makes every call take the median",
    "failures": "share of the accepted calls that end in a 500",
    "broken": "share of the streams whose connection drops half-way",
    "seed": "seed of latencies and failures",
    "requests_per_minute": "quota shown in x-ratelimit-*-requests and enforced",
    "tokens_per_minute": "quota shown in x-ratelimit-*-tokens and enforced",
}


def main(argv: Sequence[str] | None = None) -> int:
    description = "An OpenAI-compatible provider on loopback. It ends with its parent or when stdin closes."
    parser = argparse.ArgumentParser(
        "python -m scalekit.cli.provider",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    defaults = vars(Settings())
    for name, text in _HELP.items():
        kind = int if isinstance(defaults[name], int) else float
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=defaults[name], help=text)
    flags = vars(parser.parse_args(argv))
    port: int = flags.pop("port")
    try:
        settings = Settings(**flags)
    except ValueError as error:
        parser.error(str(error))
    try:
        asyncio.run(serve(settings, port))
    except OSError as error:
        print(f"the provider cannot listen on 127.0.0.1:{port}: {error}", file=sys.stderr)
        return 1
    return 0


async def serve(settings: Settings, port: int) -> None:
    """Listen on loopback until told to stop."""
    raise_open_files(8192)
    parent = os.getppid()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def request_stop(*_: object) -> None:
        loop.call_soon_threadsafe(stop.set)

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    service = Service(State(settings))
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", port, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"port": port, "base_url": f"http://127.0.0.1:{port}/v1"}), flush=True)
    if not sys.stdin.isatty():
        threading.Thread(target=_wait_for_end_of_input, args=(request_stop,), daemon=True).start()
    while not stop.is_set() and os.getppid() == parent:
        try:
            await asyncio.wait_for(stop.wait(), 0.5)
        except TimeoutError:
            continue
    server.close()


def _wait_for_end_of_input(request_stop: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
        request_stop()


if __name__ == "__main__":
    sys.exit(main())
