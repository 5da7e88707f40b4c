"""A Jupyter server of a test's own, for the tests that need one."""

import contextlib
import json
import os
import subprocess
import sys
import time

TOKEN = "only-for-this-test"


@contextlib.contextmanager
def serving(folder, module, *options, **environment):
    """Run a server's module on a free port, with all that it writes below a folder; yields (address, process)."""
    places = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "RUNTIME", "DATA")}
    environment = os.environ | places | {"IPYTHONDIR": str(folder / "ipython")} | environment
    command = [
        sys.executable,
        "-m",
        module,
        "--no-browser",
        "--ServerApp.port=0",
        f"--IdentityProvider.token={TOKEN}",
        *options,
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 90
            while (url := address(folder)) is None:
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError((folder / "log").read_text())
                time.sleep(0.1)
            yield url, process
        finally:
            process.terminate()
            process.wait(30)


def address(folder):
    """Where the server says that it is, if it has said so yet."""
    for path in (folder / "runtime").glob("jpserver-*.json"):
        with contextlib.suppress(ValueError):  # half written
            return json.loads(path.read_text())["url"]
    return None
