"""`python -m benchmarks COMMAND`: what is measured, one command for each table.

`table` measures speed, memory and quality side by side, against the loop that public tools run
(`plain`), so that ratios mean something on a noisy machine. The others give the evidence for
defaults and claims, and make parts of the gallery.
"""

from __future__ import annotations

import sys

from nstlab.cli.program import Subcommand, run_program


def commands() -> dict[str, Subcommand]:
    """{name: subcommand}; imported late, since all of it takes a while."""
    from benchmarks import (
        conventions,
        defaults,
        embedded,
        feedforward,
        film,
        optimizers,
        poster,
        report,
        transfers,
    )
    from benchmarks.scene import BenchSettings

    return {
        "table": Subcommand(report.table_command, (BenchSettings,)),
        "optimizers": Subcommand(optimizers.optimizers_command, (optimizers.OptimizersSettings,)),
        "conventions": Subcommand(
            conventions.conventions_command, (conventions.ConventionsSettings,)
        ),
        "defaults": Subcommand(defaults.defaults_command, (defaults.DefaultsSettings,)),
        "embedded": Subcommand(embedded.embedded_command, (embedded.EmbeddedSettings,)),
        "feedforward": Subcommand(
            feedforward.feedforward_command, (feedforward.FeedforwardSettings,)
        ),
        "film": Subcommand(film.film_command, (film.FilmSettings,)),
        "poster": Subcommand(poster.poster_command, (poster.PosterSettings,)),
        "transfers": Subcommand(transfers.transfers_command, (transfers.TransfersSettings,)),
    }


if __name__ == "__main__":
    sys.exit(run_program(commands, None, "python -m benchmarks", "Measure the lab."))
