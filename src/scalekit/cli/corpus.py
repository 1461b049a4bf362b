"""Real text to ask about: the Python reference that every CPython carries for `help()`, and a crowd's questions.

`pydoc_data.topics` is about 465 kB of documentation. Its paragraphs are searched with BM25 (Robertson and Zaragoza,
2009), its section titles become the questions, and their popularity follows Zipf's law, as that of real queries does.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pydoc_data.topics import topics

_WORD = re.compile(r"[a-z_][a-z0-9_]+")
_TITLE = re.compile(r"(?m)^(\S.{2,60})\n[*=~-]{3,}$")
_TEMPLATES = (
    "What does the Python reference say about {}?",
    "Explain {} with an example.",
    "What are the rules for {}?",
    "What should I watch out for with {}?",
)
_PASSAGE = 700


class Index:
    """BM25 over passages; a term's share in a passage's score is computed once, so a search only adds."""

    def __init__(self, passages: Sequence[str], *, k1: float = 1.2, b: float = 0.75) -> None:
        self.passages = passages
        counted = [Counter(_words(passage)) for passage in passages]
        lengths = [counts.total() for counts in counted]
        mean = sum(lengths) / len(lengths)
        found_in = Counter(itertools.chain.from_iterable(counted))
        self._shares: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, (counts, length) in enumerate(zip(counted, lengths, strict=True)):
            damping = k1 * (1 - b + b * length / mean)
            for term, count in counts.items():
                rarity = math.log(1 + (len(passages) - found_in[term] + 0.5) / (found_in[term] + 0.5))
                self._shares[term].append((number, rarity * count * (k1 + 1) / (count + damping)))

    def search(self, query: str, count: int) -> list[str]:
        """The `count` passages nearest to the query, best first."""
        scores: defaultdict[int, float] = defaultdict(float)
        for term in set(_words(query)):
            for number, share in self._shares.get(term, ()):
                scores[number] += share
        best = heapq.nlargest(count, scores.items(), key=lambda item: (item[1], -item[0]))
        return [self.passages[number] for number, _ in best]


@lru_cache(maxsize=1)
def reference() -> Index:
    """The Python reference, split into passages at blank lines."""
    return Index(list(dict.fromkeys(passage for text in topics.values() for passage in _passages(text))))


def _passages(text: str) -> list[str]:
    passages = [""]
    for paragraph in re.split(r"\n{2,}", text.strip()):
        if len(passages[-1]) + len(paragraph) > _PASSAGE:
            passages.append("")
        passages[-1] = f"{passages[-1]}\n\n{paragraph}".lstrip("\n")
    return [passage for passage in passages if passage]


@lru_cache(maxsize=1)
def questions() -> Sequence[str]:
    """Every question, the most popular first; the order is shuffled once and is the same everywhere."""
    titles = dict.fromkeys(title.replace("*", "") for text in topics.values() for title in _TITLE.findall(text))
    asked = [template.format(title) for title in titles for template in _TEMPLATES]
    random.Random("popularity").shuffle(asked)
    return asked


def draw(count: int, *, seed: int, exponent: float = 1.1) -> list[str]:
    """`count` questions of a Zipf-popular stream."""
    asked = questions()
    weights = [rank**-exponent for rank in range(1, len(asked) + 1)]
    return random.Random(seed).choices(asked, weights, k=count)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
