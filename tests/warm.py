"""A Python that has PyTorch loaded: processes that tests start are forked from it, since to load
takes longer than most tests.

`start` makes a program that stands in for `sys.executable`. Called, it asks the server, which has
loaded LOADED but nothing of this repository, for a process that has its arguments, folder,
environment and open files, and lives and ends as that process does: it passes signals on, and has
its exit code; if it is killed, so is the process. What it does not know, it leaves to the real
interpreter.
"""

import contextlib
import os
import signal
import socket
import sys

NAME = "NSTLAB_WARM_PYTHON"  # the variable that names the program, for the processes that run tests
COLD = "NSTLAB_COLD_PYTHON"  # and the one that names the real interpreter
LOADED = (
    "torch", "torch.distributed.launcher.api", "numpy", "scipy", "PIL.Image", "pandas", "psutil",
    "safetensors.torch",
    "av", "platformdirs",
    "concurrent.futures.process", "multiprocessing.spawn", "multiprocessing.pool", "distributed",
    "ipykernel.kernelapp",
    "ipywidgets", "anywidget", "jupyter_server.serverapp", "jupyterlab.labapp",
    "torchvision", "matplotlib.figure", "nbformat",
)  # fmt: skip
# others are not
UNDERSTOOD = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED"}
REAL = os.environ.get(COLD, sys.executable)
# descriptors of a new process wait above this number while the server's own are closed
ABOVE = 1000
SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)


def start():
    """Start a server; returns the path of the program and a function that ends both."""
    import shutil
    import subprocess
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp(prefix="nstlab-"))
    program = folder / "python"
    program.write_text(
        f"#!{REAL} -IS\n{Path(__file__).read_text(encoding='utf-8')}", encoding="utf-8"
    )
    program.chmod(0o700)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(64)
        server = subprocess.Popen(
            [REAL, __file__, "serve", str(listener.fileno())], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()], env=clean | {"OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
        )  # fmt: skip

    def end():
        server.communicate()  # closes what it reads from
        shutil.rmtree(folder)

    return str(program), end


# --- the program ----------------------------------------------------------------------------------


def ask():
    """Be the process that the server makes of this one's arguments."""
    import array
    import json
    import select

    words = sys.argv[1:]
    while words and words[0] in ("-u", "-B"):
        words = words[1:]
    known = words and (words[0] in ("-m", "-c") or words[0][0] != "-")
    opened = [number for number in map(int, os.listdir("/proc/self/fd")) if is_open(number)]
    server = socket.socket(socket.AF_UNIX)
    others = {name for name in os.environ if name.startswith("PYTHON")} - UNDERSTOOD
    try:
        if not known or others or max(opened) >= ABOVE:
            raise OSError("not for the server")
        server.connect(os.path.join(os.path.dirname(os.path.abspath(__file__)), "socket"))
    except OSError:
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.umask(umask := os.umask(0))
    asked = json.dumps({
        "program": os.path.abspath(__file__), "words": words, "flags": sys.argv[1 : -len(words)],
        "folder": os.getcwd(),
        "environment": dict(os.environ), "opened": opened, "umask": umask,
        "ignored": [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN],
    }).encode()  # fmt: skip
    files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", opened))]
    server.sendmsg([len(asked).to_bytes(8, "big")], files)
    server.sendall(asked)
    for number in opened:
        os.close(number)
    answers, (come, noted) = server.makefile(), socket.socketpair()
    if process := answers.readline():
        noted.setblocking(False)
        signal.set_wakeup_fd(noted.fileno())
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        while come in select.select([server, come], [], [])[0]:
            os.kill(int(process), come.recv(1)[0])
    code = int(answers.readline() or 70)  # without an answer, the server is no more
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def is_open(number):
    with contextlib.suppress(OSError):
        os.fstat(number)
        return True
    return False


# --- the server -----------------------------------------------------------------------------------


def serve(listener):
    """Fork processes until the one that has started this is gone; in a new process, returns what
    was asked for.

    All is loaded when the first process is asked for."""
    import selectors

    waiting, loaded, running = selectors.DefaultSelector(), False, {}
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is listener:
                client, _ = listener.accept()
                loaded = loaded or load()
                try:
                    asked, files = received(client)
                except (OSError, ValueError):  # killed before it had asked
                    continue
                if not (process := os.fork()):
                    for each in (waiting, listener, client, *running.values()):
                        each.close()
                    become(asked, files)
                    return asked
                for number in files:
                    os.close(number)
                with contextlib.suppress(OSError):
                    client.sendall(f"{process}\n".encode())
                running[process] = client
                waiting.register(client, selectors.EVENT_READ, process)
                waiting.register(os.pidfd_open(process), selectors.EVENT_READ, process)
            elif key.fileobj == 0:
                for process in running:
                    os.kill(process, signal.SIGKILL)
                os._exit(0)
            elif isinstance(key.fileobj, socket.socket):
                if key.data in running:  # and the program was killed
                    waiting.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)
            else:
                waiting.unregister(key.fileobj)
                os.close(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(key.data, 0)[1])
                client = running.pop(key.data)
                with contextlib.suppress(KeyError):
                    waiting.unregister(client)
                with contextlib.suppress(OSError):
                    client.sendall(f"{code}\n".encode())
                client.close()


def load():
    """Import what most processes need. None may have started a thread, which a fork would leave
    behind."""
    import gc
    import importlib

    for module in LOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1
    gc.collect()
    gc.freeze()
    return True


def received(client):
    """(what a program asks for, descriptors of its open files)."""
    import json

    size, files, _, _ = socket.recv_fds(client, 8, ABOVE)
    with client.makefile("rb") as stream:
        return json.loads(stream.read(int.from_bytes(size, "big"))), files


def become(asked, files):
    """Let this process, newly forked, be what an interpreter is that has just been started."""
    import atexit
    import fcntl
    import gc
    import importlib
    import io
    import multiprocessing.spawn
    import tempfile
    import types

    import numpy as np
    import torch

    os.setsid()
    high = [fcntl.fcntl(number, fcntl.F_DUPFD, ABOVE) for number in files]
    os.closerange(0, ABOVE)
    for number, place in zip(high, asked["opened"], strict=True):
        os.dup2(number, place)
        os.close(number)
    os.chdir(asked["folder"])
    os.umask(asked["umask"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    if "JPY_PARENT_PID" in os.environ:  # a kernel ends when its parent is another one
        os.environ["JPY_PARENT_PID"] = str(os.getppid())
    for number in asked["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    size = 0 if "-u" in asked["flags"] or os.environ.get("PYTHONUNBUFFERED") else -1
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = None
        if number in asked["opened"]:
            raw = open(number, "wb" if number else "rb", size if number else -1, closefd=False)  # noqa: SIM115
            errors = "backslashreplace" if name == "stderr" else "strict"
            at_once = raw.isatty() or name == "stderr"
            stream = io.TextIOWrapper(
                raw, errors=errors, line_buffering=at_once, write_through=not size
            )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.dont_write_bytecode = "-B" in asked["flags"] or bool(
        os.environ.get("PYTHONDONTWRITEBYTECODE")
    )
    # whose processes all have the same seed of hashes, as those of a cluster need
    sys.executable = asked["program"]
    multiprocessing.spawn.set_executable(sys.executable)
    tempfile.tempdir = None
    atexit.register(gc.unfreeze)  # what is never freed is told at the end, as a leak
    np.random.seed()  # noqa: NPY002  each process has numbers of its own
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    sys.modules["__main__"] = types.ModuleType("__main__")
    importlib.invalidate_caches()


def run(words):
    """Run a module, code or a script, as `python` does with these words."""
    import builtins
    import runpy

    kind, *rest = words
    code, *sys.argv[1:] = rest if kind in ("-m", "-c") else words
    sys.argv[0] = kind
    first = {"-m": os.getcwd(), "-c": ""}.get(kind, os.path.dirname(os.path.realpath(kind)))
    sys.path[:1] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    main = sys.modules["__main__"].__dict__
    main["__builtins__"] = builtins
    if kind == "-m":
        runpy._run_module_as_main(code)  # type: ignore[attr-defined]
    elif kind == "-c":
        exec(compile(code, "<string>", "exec"), main)
    else:
        main["__file__"] = code
        with open(code, "rb") as script:
            exec(compile(script.read(), code, "exec"), main)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"] and not sys.flags.isolated:
        run(serve(socket.socket(fileno=int(sys.argv[2])))["words"])
    else:
        ask()
