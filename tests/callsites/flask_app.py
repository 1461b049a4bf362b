"""A Flask app with a thread for every request and one account at a provider that allows three calls at a time.

Its owner expects that both functions together never make a fourth call, that forty visitors are all answered, that
the same headline is summarised once, and that a page nobody can serve in time answers 503 at once instead of piling
up threads.
"""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import httpx
from flask import Flask, Response
from werkzeug.serving import make_server

import scalekit

app = Flask(__name__)
lock = threading.Lock()
running = peak = calls = 0
provider = scalekit.limit(concurrency=3, queue_timeout="10s", name="provider")
release = threading.Event()


def upstream(text: str) -> str:
    global running, peak, calls
    with lock:
        running += 1
        calls += 1
        peak = max(peak, running)
    time.sleep(0.01)
    with lock:
        running -= 1
    return text


@app.get("/summary/<headline>")
@scalekit.cache(ttl="5m")
@provider
def summary(headline: str) -> str:
    return upstream(headline.split()[0])


@provider
def translate(text: str) -> str:
    return upstream(text[::-1])


@app.get("/translation/<text>")
def translation(text: str) -> str:
    return translate(text)


@app.get("/report/<int:number>")
@scalekit.limit(concurrency=1, max_queue=2)
def report(number: int) -> str:
    release.wait(10)
    return f"report {number}"


@app.errorhandler(scalekit.Overloaded)
def busy(error: scalekit.Overloaded) -> Response:
    return Response(str(error), 503, {"Retry-After": str(round(error.retry_after or 1))})


def visit(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=20)


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with ThreadPoolExecutor(24) as visitors:
        pages = [f"{url}/summary/Storm over town"] * 20 + [f"{url}/translation/{n}" for n in range(100, 120)]
        answers = list(visitors.map(visit, pages))
        assert [answer.text for answer in answers] == ["Storm"] * 20 + [str(n)[::-1] for n in range(100, 120)]
        assert (calls, peak) == (21, 3), f"{calls} calls, {peak} at once"

        arriving = as_completed([visitors.submit(visit, f"{url}/report/{n}") for n in range(8)])
        refused = [next(arriving).result() for _ in range(5)]
        release.set()
        served = [future.result() for future in arriving]
    assert [answer.status_code for answer in refused] == [503] * 5
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert [answer.status_code for answer in served] == [200] * 3
    server.shutdown()


if __name__ == "__main__":
    main()
