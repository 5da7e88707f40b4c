"""Faults to inject, and the one line with which bad input is refused."""

import itertools

import pytest

from nstlab.method.fast.evaluation import FastBound
from nstlab.settings import InputError


def raise_at(monkeypatch, evaluation: int, error: BaseException | type[BaseException] = KeyboardInterrupt) -> None:
    """Let the evaluation of that number, counted from now on, raise an error, as Ctrl-C in the middle of it does."""

    def fail(result):
        raise error

    change_at(monkeypatch, evaluation, fail)


def change_at(monkeypatch, evaluation: int, change) -> None:
    """Let the evaluation of that number, counted from now on, return `change` of its (loss / scale, gradient, values)."""
    evaluate, count = FastBound.evaluate, itertools.count(1)

    def changed(self, image):
        result = evaluate(self, image)
        return change(result) if next(count) == evaluation else result

    monkeypatch.setattr(FastBound, "evaluate", changed)


def refusal(call, *args, **kwargs) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)
