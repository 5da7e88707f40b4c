"""How long the processor's threads wait for each other before they let go of their core.

PyTorch divides its work among all cores in small pieces. Between pieces its threads spin, so that
the next one begins at once; by default for milliseconds. Two processes on the same cores then steal
each other's time, and take five times as long as one after the other would. Spinning for some ten
microseconds costs a lone process next to nothing, and leaves the core to whoever needs it.
"""

from __future__ import annotations

import os

WAITING = {
    "GOMP_SPINCOUNT": "2000",  # GNU's OpenMP (Linux): turns of a loop, 300000 by default
    "KMP_BLOCKTIME": "1",  # LLVM's and Intel's (macOS, Windows): milliseconds, 200 by default
}
POLICY = "OMP_WAIT_POLICY"  # with which users may say the same


def share_cores() -> None:
    """Set how threads wait, in this process and those it starts, unless the user has.

    OpenMP reads it as PyTorch loads.
    """
    if not any(name in os.environ for name in (POLICY, *WAITING)):
        os.environ.update(WAITING)
