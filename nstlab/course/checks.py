"""How exercises are checked: the registry of checks, `check`, which notebooks call, and how answers
are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from IPython.display import Markdown

from nstlab.base.errors import one_of

EXERCISES: dict[str, Callable[..., str]] = {}


def exercise(number: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Put a check into EXERCISES, under a notebook's number and its own: "03.1"."""

    def register(check: Callable[..., str]) -> Callable[..., str]:
        EXERCISES[number] = check
        return check

    return register


def check(name: str, answer: Any, *material: Any, solution: bool = False) -> Markdown:
    """Whether an exercise is solved; a hint if not. material: what the exercise needs besides the
    answer. solution: whether the answer is the notebook's own."""
    right = EXERCISES[one_of("exercise", name, list(EXERCISES))]
    try:
        hint = right(_given(answer), *material)
    except Unanswered:
        nothing = " (your function returns nothing)" if callable(answer) else ""
        return Markdown(
            f"*Exercise {name}: put your answer in place of the dots{nothing}, and run the "
            "cell again.*"
        )
    except Exception as error:  # in the reader's own function, say
        hint = f"it ends in {type(error).__name__}: {error}"
    if hint:
        end = "" if hint.endswith(("?", ".")) else "."
        return Markdown(f"✗ **Exercise {name}: not yet.** {hint[0].upper()}{hint[1:]}{end}")
    return Markdown(
        f"The solution of exercise {name}: ✓" if solution else f"✓ **Exercise {name}: right.**"
    )


class Unanswered(Exception):
    """There is no answer yet."""


def _given(answer: Any) -> Any:
    """The answer, if there is one. A function is wrapped, so that it too counts as unanswered if it
    returns nothing."""
    if answer is None or answer is ...:
        raise Unanswered
    if not callable(answer):
        return answer
    return lambda *values: _given(answer(*values))


# --- how answers are compared ---------------------------------------------------------------------


def close(found: Any, wanted: Any, tolerance: float = 1e-3) -> bool:
    """Whether two numbers, or two arrays of one shape, agree within a part of the largest value."""
    found = np.asarray(found, dtype=float)
    wanted = np.asarray(wanted, dtype=float)
    return found.shape == wanted.shape and bool(
        np.all(np.abs(found - wanted) <= tolerance * np.abs(wanted).max() + 1e-12)
    )


def hint(
    found: Any, wanted: Any, mistakes: dict[str, Any], otherwise: str, tolerance: float = 1e-3
) -> str:
    """Say nothing, "", for the wanted value; for another, the hint of the known mistake that leads
    to it, or else `otherwise`."""
    if close(found, wanted, tolerance):
        return ""
    return next(
        (hint for hint, value in mistakes.items() if close(found, value, tolerance)), otherwise
    )


def word(answer: Any) -> str:
    return str(answer).strip().lower()


def choice(answer: Any, allowed: tuple[str, ...], right: str, hint: str) -> str:
    """ "" for the right one of the words that are allowed, the hint for another of them."""
    if word(answer) not in allowed:
        *most, last = (f'"{word}"' for word in allowed)
        return f"answer {', '.join(most)} or {last}"
    return "" if word(answer) == right else hint


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
