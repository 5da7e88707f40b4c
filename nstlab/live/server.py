"""An extension of Jupyter's server: odd addresses are not found (404).

Some handlers of Jupyter and Voila fail (500) on addresses that no file can have, so they do not get
to see them. The settings of `make studio` name this module.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.base.handlers import Template404
from tornado.routing import PathMatches, Rule

SLASH = r"(?:/|\\|%2f|%5c)"
ODD = "|".join(
    [
        r".*%(?:[01][0-9a-f]|7f)",  # control characters
        rf".*{SLASH}(?:\.|%2e)+(?:{SLASH}|$)",  # "." and ".." as parts of a path
        r".*(?:[^/%]|%..){256}",  # names longer than any file's
        r".{4096}",
        r".*/voila/templates/(?![\w-]+/static/.)",
        r".*/nbconvert/",  # which the app does not need
    ]
)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Put a rule before those of Jupyter and of all other extensions."""
    app.web_app.default_router.rules.insert(0, Rule(PathMatches(f"(?i:{ODD}).*"), Template404))
