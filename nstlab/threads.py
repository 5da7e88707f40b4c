"""How long the processor's threads wait for each other before they let go of their core.

PyTorch works on small pieces with all cores, and between them its threads spin, so that the next piece begins at once. By
default they do so for milliseconds; two processes on the same cores then steal each other's time, and take five times as long
as one after the other would. Some ten microseconds lose next to nothing alone, and leave the core to whoever needs it.
"""

from __future__ import annotations

import os

WAITING = {
    "GOMP_SPINCOUNT": "2000",  # GNU's OpenMP (Linux): turns of a loop, 300000 by default
    "KMP_BLOCKTIME": "1",  # LLVM's and Intel's (macOS, Windows): milliseconds, 200 by default
}
POLICY = "OMP_WAIT_POLICY"  # by which users may say the same


def share_cores() -> None:
    """Set it for this process and those that it starts, unless the user has; called before PyTorch is loaded, for OpenMP reads
    it then."""
    if not any(name in os.environ for name in (POLICY, *WAITING)):
        os.environ.update(WAITING)
