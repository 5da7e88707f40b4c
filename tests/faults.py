"""Faults to inject, and how they are told."""

import pytest

from nstlab.method import engine
from nstlab.settings import InputError


def raise_at(monkeypatch, evaluation: int, error: BaseException | type[BaseException] = KeyboardInterrupt) -> None:
    """Let the evaluation of that number raise, as Ctrl-C in the midst of it does."""
    whole = engine.Evaluator.__call__

    def evaluate(self, x):
        if self.count + 1 == evaluation:
            raise error
        return whole(self, x)

    monkeypatch.setattr(engine.Evaluator, "__call__", evaluate)


def refusal(call, *args, **kwargs) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)
