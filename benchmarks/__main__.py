"""`python -m benchmarks`: how fast, how lean and how near to the machine's limit, against the loop
that public tools run.

`plain` is that loop; `speed` and `processes` measure the rows of the table; `report` prints, keeps
and compares it. Everything is measured in one run, side by side, so that ratios mean something on a
noisy machine.
"""

import sys

from benchmarks import report
from benchmarks.scene import BenchSettings
from nstlab.cli.program import Subcommand, run_program

if __name__ == "__main__":
    command = Subcommand(report.bench_command, (BenchSettings,))
    sys.exit(run_program(lambda: {"bench": command}, None, "python -m benchmarks"))
