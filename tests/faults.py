"""Faults to inject."""

from nstlab import engine


def raise_at(monkeypatch, evaluation: int, error: BaseException | type[BaseException] = KeyboardInterrupt) -> None:
    """Let the evaluation of that number raise, as Ctrl-C in the midst of it does."""
    whole = engine.Evaluator.__call__

    def evaluate(self, x):
        if self.count + 1 == evaluation:
            raise error
        return whole(self, x)

    monkeypatch.setattr(engine.Evaluator, "__call__", evaluate)
