"""What the notebooks call: a `Lesson` each, exercises with hints, demonstrations, and the command that runs them all."""

from nstlab.lessons.lesson import Lesson

__all__ = ["Lesson"]
