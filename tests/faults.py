"""Faults to inject, and the one line with which bad input is refused."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from nstlab.base.errors import InputError
from nstlab.method.fast.evaluation import FastBound
from nstlab.method.objectives import Bound


def raise_at(
    monkeypatch,
    evaluation: int,
    error: BaseException | type[BaseException] = KeyboardInterrupt,
    kind: type[Bound] = FastBound,
) -> None:
    """Let the evaluation of that number, counted from now on, raise an error, as Ctrl-C in the
    middle of it does."""

    def fail(result):
        raise error

    change_at(monkeypatch, evaluation, fail, kind)


def change_at(monkeypatch, evaluation: int, change, kind: type[Bound] = FastBound) -> None:
    """Let the evaluation of that number, counted from now on, return `change` of its (loss / scale,
    gradient, values)."""
    evaluate, count = kind.evaluate, itertools.count(1)

    def changed(self, image):
        result = evaluate(self, image)
        return change(result) if next(count) == evaluation else result

    monkeypatch.setattr(kind, "evaluate", changed)


def damaged(whole: bytes, reach: int | None = None) -> Iterator[bytes]:
    """A file's content, cut at 50 places, and 100 times with three wrong bytes, all of them within
    reach of the beginning."""
    random = np.random.default_rng(0)
    for end in np.linspace(0, len(whole) - 1, 50).astype(int):
        yield whole[:end]
    for _ in range(100):
        wrong = np.frombuffer(whole, np.uint8).copy()
        wrong[random.integers(0, min(len(whole), reach or len(whole)), size=3)] = random.integers(
            0, 256, size=3
        )
        yield wrong.tobytes()


def read_or_refused(read, path, content: bytes):
    """What is read of a file of that content, or None if it is refused in one line that names the
    file."""
    path.write_bytes(content)
    try:
        return read(path)
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return None


def refusal(call, *args, **kwargs) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)
