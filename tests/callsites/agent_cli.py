"""A command-line agent that is started anew for every question, and pays for every completion.

Its author expects that the second run answers from the disk what the first one paid for, as the very `ChatCompletion`
that the SDK builds, vendor's extras included; that half an answer is never kept; that another temperature is another
answer; and that the next release of the prompt starts cold.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from typing import Any

from openai.types.chat import ChatCompletion

import scalekit

DISK = os.environ.get("AGENT_DISK", "")


def upstream(question: str, temperature: float) -> ChatCompletion:
    """What the provider sends, as the SDK builds it: without validation."""
    print("paid")
    message: dict[str, Any] = {"role": "assistant", "content": question.upper(), "vendor_note": {"tier": [1, 2]}}
    choice = {"index": 0, "finish_reason": "length" if "long" in question else "stop", "message": message}
    return ChatCompletion.construct(
        id="c1",
        object="chat.completion",
        created=0,
        model="m",
        choices=[choice],
        x_region="eu",
        temperature=temperature,
    )


@scalekit.cache(
    ttl="30d",
    tiers=["memory", scalekit.Disk(DISK or None, max_bytes="50MB")],
    when=scalekit.is_complete,
    version=os.environ.get("AGENT_VERSION", "1"),
)
async def complete(question: str, temperature: float = 0.0) -> ChatCompletion:
    await asyncio.sleep(0)
    return upstream(question, temperature)


async def ask(question: str) -> None:
    first, second = await asyncio.gather(complete(question), complete(question))
    assert first == second == await complete(question) or "long" in question
    extra: Any = first
    assert extra.x_region == "eu"
    assert extra.choices[0].message.vendor_note == {"tier": [1, 2]}
    print(first.choices[0].message.content)


def run(question: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, question],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def main() -> None:
    if len(sys.argv) > 1:
        asyncio.run(ask(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        assert run("why?", AGENT_DISK=folder) == ["paid", "WHY?"]
        assert run("why?", AGENT_DISK=folder) == ["WHY?"], "paid twice"
        assert run("how?", AGENT_DISK=folder) == ["paid", "HOW?"]
        assert run("long", AGENT_DISK=folder) == ["paid", "paid", "LONG"]
        assert run("long", AGENT_DISK=folder) == ["paid", "paid", "LONG"], "half an answer was kept"
        assert run("why?", AGENT_DISK=folder, AGENT_VERSION="2") == ["paid", "WHY?"]


if __name__ == "__main__":
    main()
