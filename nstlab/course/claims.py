"""What a notebook asks, and what its runs answer: a guess, and claims with their numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as w
from IPython.display import Markdown

from nstlab.base.errors import one_of
from nstlab.live.static import static


@dataclass(frozen=True)
class Claim:
    """A sentence, the numbers that confirm or refute it, and whether it holds."""

    text: str
    number: str
    holds: bool


def claim(
    text: str, numbers: float | Sequence[float] | Mapping[str, float], holds: bool, unit: str = ""
) -> Claim:
    """Make a claim, with its numbers written out: "0.123, 4.56 px", "noise 0.1, grey 0.2".

    Args:
        text: the claim.
        numbers: what decides it; a mapping gives each a name.
        holds: whether they confirm it.
        unit: of all numbers.
    """
    if isinstance(numbers, Mapping):
        words = [f"{name} {value:.3g}" for name, value in numbers.items()]
    elif isinstance(numbers, Sequence):
        words = [f"{value:.3g}" for value in numbers]
    else:
        words = [f"{numbers:.3g}"]
    return Claim(text, f"{', '.join(words)} {unit}".strip(), bool(holds))


def rises(values: Sequence[float]) -> bool:
    """Whether each value is larger than the one before; False for fewer than two values."""
    return len(values) > 1 and all(a < b for a, b in itertools.pairwise(values))


def table(claims: Sequence[Claim]) -> str:
    """Claims as a Markdown table."""
    lines = ["| claim | number | holds |", "|---|---|---|"]
    for claim in claims:
        holds = "yes" if claim.holds else "**no**"
        lines.append(f"| {claim.text} | {claim.number} | {holds} |")
    return "\n".join(lines)


class Guess:
    """A question with choices, asked before the answer can be seen.

    Without a browser, only the question and its choices are shown.
    """

    def __init__(self, question: str, choices: Sequence[str]):
        self.question = question
        self.choices = tuple(choices)
        self.buttons = w.RadioButtons(
            options=self.choices, value=None, layout={"width": "max-content"}
        )

    def _repr_mimebundle_(self, **options: Any) -> Any:
        if static():
            choices = "\n".join(f"- {choice}" for choice in self.choices)
            return {"text/markdown": f"**{self.question}**\n\n{choices}"}
        widget = w.VBox([w.HTML(f"<b>{self.question}</b>"), self.buttons])
        return widget._repr_mimebundle_(**options)


def predict(question: str, choices: Sequence[str]) -> Guess:
    """Ask the reader for a guess.

    Returns:
        What to show as the last line of a cell, and to hand to `verdict` later.
    """
    return Guess(question, choices)


def verdict(guess: Guess, answer: str, claims: Sequence[Claim]) -> Markdown:
    """The answer beside what the reader guessed, and the table of claims.

    Raises:
        InputError: if the answer is not among the choices.
    """
    one_of("answer", answer, list(guess.choices))
    guessed = ""
    if guess.buttons.value is not None:
        guessed = f"You predicted: *{guess.buttons.value}*. "
        if guess.buttons.value == answer:
            guessed += "That is it. "
    return Markdown(f"**{guess.question}** {guessed}The runs say: **{answer}**.\n\n{table(claims)}")
