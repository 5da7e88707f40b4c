"""`python -m benchmarks`: how fast, how lean and how near to the machine's limit, against the loop that public tools run.

`plain` is that loop, `measures` the rows of the table, `report` the table, its file and the comparison with an earlier one.
Everything is measured in one run, side by side, so that ratios mean something on a noisy machine.
"""

import sys

from benchmarks import report
from benchmarks.measures import BenchSettings
from nstlab.commandline import Subcommand, run_program

if __name__ == "__main__":
    sys.exit(run_program({"bench": Subcommand(report.command, (BenchSettings,))}, None, "python -m benchmarks"))
