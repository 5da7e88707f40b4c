"""What a notebook asks and what its runs answer: a guess beforehand, and claims, each with the
numbers that decide it."""

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
    """A claim with its numbers written out: "0.123, 4.56 px", "noise 0.1, grey 0.2"."""
    if not isinstance(numbers, (Mapping, Sequence)):
        numbers = [numbers]
    named = numbers.items() if isinstance(numbers, Mapping) else [("", value) for value in numbers]
    shown = ", ".join(f"{name} {value:.3g}".strip() for name, value in named)
    return Claim(text, f"{shown} {unit}".strip(), bool(holds))


def rises(values: Sequence[float]) -> bool:
    """Whether each value is larger than the one before; False for fewer than two values."""
    return len(values) > 1 and all(a < b for a, b in itertools.pairwise(values))


def table(claims: Sequence[Claim]) -> str:
    """Claims as a Markdown table."""
    lines = ["| claim | number | holds |", "|---|---|---|"]
    return "\n".join(
        lines + [f"| {c.text} | {c.number} | {'yes' if c.holds else '**no**'} |" for c in claims]
    )


class Guess:
    """A question with choices, asked before the answer can be seen. Without a browser, only the
    question is shown."""

    def __init__(self, question: str, choices: Sequence[str]):
        self.question = question
        self.choices = tuple(choices)
        self.buttons = w.RadioButtons(
            options=self.choices, value=None, layout={"width": "max-content"}
        )

    def _repr_mimebundle_(self, **options: Any) -> Any:
        if static():
            return {
                "text/markdown": f"**{self.question}**\n\n"
                + "\n".join(f"- {choice}" for choice in self.choices)
            }
        return w.VBox([w.HTML(f"<b>{self.question}</b>"), self.buttons])._repr_mimebundle_(
            **options
        )


def predict(question: str, choices: Sequence[str]) -> Guess:
    """Ask the reader for a guess. Show the result as the last line of a cell, and hand it to
    `verdict` later."""
    return Guess(question, choices)


def verdict(guess: Guess, answer: str, claims: Sequence[Claim]) -> Markdown:
    """The answer beside what the reader guessed, and the table of claims. InputError if the answer
    is not among the choices."""
    one_of("answer", answer, list(guess.choices))
    given = guess.buttons.value
    guessed = (
        ""
        if given is None
        else f"You predicted: *{given}*. " + ("That is it. " if given == answer else "")
    )
    return Markdown(f"**{guess.question}** {guessed}The runs say: **{answer}**.\n\n{table(claims)}")
