"""The demo's text and questions."""

from __future__ import annotations

from collections import Counter

from scalekit.cli import corpus


def test_the_reference_answers_a_question_about_itself() -> None:
    """The best passage for a question about a statement is about that statement."""
    best, *others = corpus.reference().search("What are the rules for the nonlocal statement?", 5)
    assert "nonlocal" in best
    assert len(others) == 4


def test_a_few_questions_are_asked_most() -> None:
    """The stream is Zipf-popular, made of hundreds of questions, and the same for the same seed."""
    drawn = corpus.draw(5000, seed=3)
    counts = [count for _, count in Counter(drawn).most_common()]
    assert 300 < len(counts) < 1000
    assert counts[0] > 4 * counts[20]
    assert drawn == corpus.draw(5000, seed=3) != corpus.draw(5000, seed=4)
