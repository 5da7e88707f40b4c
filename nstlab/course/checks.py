"""How exercises are checked: the registry, `check`, and how answers are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from IPython.display import Markdown

from nstlab.base.errors import one_of

EXERCISES: dict[str, Callable[..., str]] = {}


def exercise(number: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Put a check into EXERCISES, as a decorator.

    Args:
        number: of the notebook and of the exercise in it: "03.1".
    """

    def register(check: Callable[..., str]) -> Callable[..., str]:
        EXERCISES[number] = check
        return check

    return register


def check(name: str, answer: Any, *material: Any, solution: bool = False) -> Markdown:
    """Say whether an exercise is solved, with a hint if not.

    Args:
        name: number of the exercise, "03.1".
        answer: the reader's: a value, or a function.
        material: what the exercise needs besides the answer.
        solution: whether the answer is the notebook's own.

    Raises:
        InputError: if there is no such exercise.
    """
    find_hint = EXERCISES[one_of("exercise", name, list(EXERCISES))]
    try:
        hint = find_hint(_require(answer), *material)
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


def _require(answer: Any) -> Any:
    """The answer; Unanswered if there is none, or if it is a function that returns nothing."""
    if answer is None or answer is ...:
        raise Unanswered
    if not callable(answer):
        return answer
    return lambda *values: _require(answer(*values))


# --- how answers are compared ---------------------------------------------------------------------


def close(value: Any, expected: Any, tolerance: float = 1e-3) -> bool:
    """Whether two numbers, or two arrays of one shape, agree.

    Args:
        value, expected: what is compared.
        tolerance: of each difference, as a part of the largest expected value.
    """
    value = np.asarray(value, dtype=float)
    expected = np.asarray(expected, dtype=float)
    if value.shape != expected.shape:
        return False
    bound = tolerance * np.abs(expected).max() + 1e-12
    return bool(np.all(np.abs(value - expected) <= bound))


def hint(
    value: Any, expected: Any, mistakes: dict[str, Any], otherwise: str, tolerance: float = 1e-3
) -> str:
    """Find the hint for a value.

    Args:
        value: the answer, or what the reader's function returns.
        expected: the right one.
        mistakes: {hint: the value that a known mistake leads to}.
        otherwise: the hint for any other value.
        tolerance: see `close`.

    Returns:
        A hint; "" for the right value.
    """
    if close(value, expected, tolerance):
        return ""
    for hint, mistaken in mistakes.items():
        if close(value, mistaken, tolerance):
            return hint
    return otherwise


def word(answer: Any) -> str:
    """The answer as a word, in small letters."""
    return str(answer).strip().lower()


def choice(answer: Any, allowed: tuple[str, ...], right: str, hint: str) -> str:
    """Find the hint for one of several words.

    Returns:
        What words are allowed, if it is none of them; "" for the right one, `hint` for another.
    """
    if word(answer) not in allowed:
        *most, last = (f'"{word}"' for word in allowed)
        return f"answer {', '.join(most)} or {last}"
    return "" if word(answer) == right else hint


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Values between 0 and 1, the same each time."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
