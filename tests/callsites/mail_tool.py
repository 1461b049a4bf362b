"""An agent's tool that sends mail through an HTTP API. A mail that is sent twice is worse than one that is not sent.

The author marks the function with `@scalekit.effect` and expects that it is tried again when the request surely never
took effect (nobody listened, or the answer was 429), never when it may have (the connection broke after the request),
and that a cache on it is refused while the module is imported.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from tenacity import wait_fixed

import scalekit

sent: list[str] = []
behaviour: dict[str, list[str]] = {}


class MailServer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        to: str = json.loads(self.rfile.read(int(self.headers["content-length"])))["to"]
        plan = behaviour.get(to, [])
        what = plan.pop(0) if plan else "accept"
        if what == "busy":
            self.send_response(429)
            self.send_header("retry-after", "0")
        else:
            sent.append(to)
            if what == "break":  # the mail is out, but the sender never hears of it
                self.close_connection = True
                return
            self.send_response(500 if what == "crash" else 202)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@scalekit.retry(attempts=8, wait=wait_fixed(0.05))
@scalekit.limit(concurrency=5)
@scalekit.effect
async def send_mail(api: str, to: str, text: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.post(f"{api}/send", json={"to": to, "text": text})).raise_for_status().status_code


@scalekit.retry(attempts=8, wait=wait_fixed(0.05))
@scalekit.effect
def send_mail_now(api: str, to: str, text: str) -> int:
    with httpx.Client(trust_env=False) as client:
        return client.post(f"{api}/send", json={"to": to, "text": text}).raise_for_status().status_code


async def send(api: str, to: str) -> object:
    """Both colours of the tool, one after the other: what each came to."""
    calls = [send_mail(api, to, "hello"), asyncio.to_thread(send_mail_now, api, to, "hello")]
    return [type(outcome) for outcome in await asyncio.gather(*calls, return_exceptions=True)]


def refused(decorate: Callable[[], object]) -> bool:
    try:
        decorate()
    except scalekit.ConfigurationError as error:
        return "effect" in str(error)
    return False


async def scenario(server: ThreadingHTTPServer) -> None:
    api = f"http://127.0.0.1:{server.server_port}"
    behaviour.update(ann=["busy"] * 4, bob=["break"] * 9, eve=["crash"] * 9)
    assert await send(api, "ann") == [int, int]
    assert await send(api, "bob") == [httpx.RemoteProtocolError] * 2
    assert await send(api, "eve") == [httpx.HTTPStatusError] * 2
    assert sorted(sent) == ["ann"] * 2 + ["bob"] * 2 + ["eve"] * 2, f"a mail was sent again: {sent}"


async def late_start(server: ThreadingHTTPServer, port: int) -> None:
    """The mail server comes up while the tool already tries."""
    sending = asyncio.create_task(send(f"http://127.0.0.1:{port}", "joe"))
    await asyncio.sleep(0.12)
    server.server_bind()
    server.server_activate()
    threading.Thread(target=server.serve_forever).start()
    assert await sending == [int, int]
    assert sent.count("joe") == 2


def main() -> None:
    assert refused(lambda: scalekit.cache(ttl="1h")(send_mail))
    assert refused(lambda: scalekit.effect(scalekit.cache(lambda to: to)))
    with ThreadingHTTPServer(("127.0.0.1", 0), MailServer) as server:
        threading.Thread(target=server.serve_forever).start()
        asyncio.run(scenario(server))
        server.shutdown()
        port = server.server_port
    with ThreadingHTTPServer(("127.0.0.1", port), MailServer, bind_and_activate=False) as server:
        asyncio.run(late_start(server, port))
        server.shutdown()


if __name__ == "__main__":
    main()
