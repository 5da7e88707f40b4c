"""A Jupyter server of a test's own, for the tests that need one."""

import contextlib
import json
import os
import socket
import subprocess
import sys

from helpers import until

TOKEN = "only-for-this-test"


@contextlib.contextmanager
def serving(folder, module, *options):
    """Run a server's module on a free port, with all that it writes below a folder; yields
    (address, process id)."""
    places = {
        f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "RUNTIME", "DATA")
    }
    environment = os.environ | places | {"IPYTHONDIR": str(folder / "ipython")}
    options = ["--no-browser", "--ServerApp.port=0", f"--IdentityProvider.token={TOKEN}", *options]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *options], env=environment, stdout=log, stderr=log
        )
        try:
            until(lambda: about(folder) or process.poll() is not None, seconds=90)
            assert process.poll() is None, (folder / "log").read_text()
            yield about(folder)["url"], about(folder)["pid"]
        finally:
            process.terminate()
            process.wait(30)


def about(folder):
    """What the server says of itself, once it can be reached."""
    for path in (folder / "runtime").glob("jpserver-*.json"):
        with contextlib.suppress(ValueError, OSError):  # half written, or nobody listens yet
            said = json.loads(path.read_text())
            socket.create_connection((said["hostname"], said["port"])).close()
            return said
    return None
