"""`scalekit demo`: the agent of `agent.py` before growing crowds, plain and decorated, against a bounded provider.

The provider is a process of this machine unless `--base-url` names a real one. Then every answer costs money, so the
demo says so, asks, and comes with smaller crowds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalekit.cli import flags
from scalekit.cli.crowd import Plan, Upstream, deal
from scalekit.cli.meter import Meter
from scalekit.cli.provider import Provider, ProviderFailed, Settings
from scalekit.cli.system import Refused, require
from scalekit.cli.trial import Start, Subject, Trial, calls_each

if TYPE_CHECKING:
    from rich.console import Console

CROWDS = (1, 10, 11, 100, 1000)
MOST = 3000
QUICK_CROWDS = (1, 11, 100, 1000)
CROWDS_OF_A_REAL_PROVIDER = (1, 10, 11)
TOKENS_OF_A_QUESTION = 900
EPILOG = """\
Each crowd starts cold and asks the same Zipf-popular questions, plain and
decorated, with no pause between one question and the next. `answered` and
`failed` count questions; `upstream`, `429s` and `paid` (tokens) are the
provider's own counts; p50 and p95 are what a user waited for an answer;
`saved` is the usage of all answers that users received minus the tokens paid.

The exit code is 1 if the decorated agent left a question unanswered, 130 after
Ctrl-C. With --base-url the counts are taken around the completion function."""


@dataclass(frozen=True)
class Scale:
    """How much is asked of whom."""

    crowds: tuple[int, ...]
    questions: int
    most: int
    median: float = 0.2

    def plan(self, users: int, seed: int) -> Plan:
        from scalekit.cli import corpus

        each = calls_each(users, self.questions, self.most)
        return deal([((question,), {}) for question in corpus.draw(users * each, seed=seed)], users, each)


def configure(parser: argparse.ArgumentParser) -> None:
    flags.explain(parser, EPILOG)
    flags.add_users(parser, "1,10,11,100,1000; with --base-url 1,10,11")
    flags.add_plot(parser)
    parser.add_argument(
        "--questions",
        type=flags.positive,
        default=5,
        help=f"of each user, one by one (5; a crowd asks at most {MOST:,})",
    )
    parser.add_argument(
        "--slots", type=flags.positive, default=10, metavar="N", help="calls that the provider takes at once (10)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of questions, latencies and failures (1)")
    parser.add_argument("--quick", action="store_true", help="faster provider, fewer questions: about 10 seconds")
    real = parser.add_argument_group("a real provider")
    real.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible API: https://api.openai.com/v1")
    real.add_argument("--api-key", metavar="KEY", help="its key (else OPENAI_API_KEY)")
    real.add_argument("--model", help="its model")
    real.add_argument("--yes", action="store_true", help="spend money without asking")


def run(arguments: argparse.Namespace) -> int:
    require("rich", "openai", *(["matplotlib"] if arguments.plot else []))
    from scalekit.cli import report

    screen = report.console()
    try:
        return _real(arguments, screen) if arguments.base_url else _loopback(arguments, screen)
    except ProviderFailed as error:
        raise Refused(str(error)) from error


def _loopback(arguments: argparse.Namespace, screen: Console) -> int:
    scale = Scale(arguments.users or CROWDS, arguments.questions, most=MOST)
    if arguments.quick:
        scale = Scale(arguments.users or QUICK_CROWDS, arguments.questions, most=200, median=0.05)
    settings = Settings(slots=arguments.slots, median=scale.median, seed=arguments.seed)
    with Provider(settings) as provider:
        screen.print(
            f"The provider (process {provider.pid}): {settings.slots} slots, {settings.median * 1000:.0f} ms median, "
            f"{settings.failures:.0%} failures."
        )
        from scalekit.cli import agent

        def upstream() -> Upstream:
            counts = provider.stats()
            return Upstream(counts["calls"], counts["rejected"], counts["prompt_tokens"] + counts["completion_tokens"])

        def plain() -> Start:
            provider.reset()
            return Start(agent.plain().ask, upstream)

        def decorated() -> Start:
            provider.reset()
            return Start(agent.decorated(settings.slots).ask, upstream)

        subjects = [Subject("plain", plain), Subject("decorated", decorated)]
        return _conduct(arguments, screen, scale, subjects, provider.base_url, "loopback", "demo-chat")


def _real(arguments: argparse.Namespace, screen: Console) -> int:
    key = arguments.api_key or os.environ.get("OPENAI_API_KEY")
    if not key or not arguments.model:
        missing = "--model" if key else "--api-key (or OPENAI_API_KEY)"
        raise Refused(f"--base-url names a real provider, so {missing} is needed too")
    scale = Scale(arguments.users or CROWDS_OF_A_REAL_PROVIDER, arguments.questions, most=sys.maxsize)
    most = 2 * sum(users * scale.questions for users in scale.crowds)
    _agree(
        f"This spends money: up to {most:,} calls (about {most * TOKENS_OF_A_QUESTION:,} tokens) of {arguments.model} "
        f"at {arguments.base_url}.",
        arguments.yes,
        screen,
    )
    from scalekit.cli import agent

    def plain() -> Start:
        meter = Meter()
        return Start(agent.plain(meter.count(agent.complete)).ask, meter.upstream)

    def decorated() -> Start:
        meter = Meter()
        return Start(agent.decorated(arguments.slots, meter.count(agent.complete)).ask, meter.upstream)

    subjects = [Subject("plain", plain), Subject("decorated", decorated)]
    return _conduct(arguments, screen, scale, subjects, arguments.base_url, key, arguments.model)


def _agree(warning: str, agreed: bool, screen: Console) -> None:
    screen.print(warning, style="bold yellow")
    if agreed:
        return
    if not sys.stdin.isatty():
        raise Refused("there is nobody to ask: say --yes to spend the money")
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise Refused("nothing was sent")


def _conduct(
    arguments: argparse.Namespace,
    screen: Console,
    scale: Scale,
    subjects: list[Subject],
    base_url: str,
    api_key: str,
    model: str,
) -> int:
    from scalekit.cli import agent, corpus, report

    screen.print("The decorated agent is the plain one and these lines:\n")
    report.code(agent.decoration(arguments.slots), screen)
    corpus.reference()
    trial = Trial(subjects, scale.crowds, lambda users: scale.plan(users, arguments.seed), report.announce(screen))

    async def session() -> None:
        async with agent.connect(base_url, api_key, model, loopback=arguments.base_url is None):
            if arguments.base_url is None:
                await agent.warm_up()
            await trial.on_loop()

    whole = report.present(trial, lambda: asyncio.run(session()), screen)
    if arguments.plot and trial.tallies:
        report.picture(trial.tallies, arguments.plot, screen)
    if not whole:
        return 130
    return 0 if all(tally.failed == 0 for tally in trial.tallies if tally.subject == "decorated") else 1
