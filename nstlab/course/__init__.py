"""The course: the experiments with their claims, the lessons that notebooks are made of, and the command that runs notebooks.

Names are imported when they are first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
