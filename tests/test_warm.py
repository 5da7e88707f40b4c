"""A process of the warm Python is what one of the real interpreter is."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import warm
from helpers import until

pytestmark = pytest.mark.skipif(warm.NAME not in os.environ, reason="no warm Python here")


@pytest.fixture(params=["warm", "real"])
def python(request):
    """The program, and what it stands in for."""
    return os.environ[warm.NAME] if request.param == "warm" else warm.REAL


def said(python, *words, **options):
    """(exit code, what is written) by a Python."""
    options = {"capture_output": True, "text": True, "timeout": 120} | options
    done = subprocess.run([python, *words], check=False, **options)
    return done.returncode, done.stdout, done.stderr


def test_it_has_loaded_pytorch_and_nothing_of_this_repository():
    code = (
        "import sys; print('torch' in sys.modules, [n for n in sys.modules if n.split('.')[0] "
        "== 'nstlab'])"
    )
    assert said(os.environ[warm.NAME], "-c", code) == (0, "True []\n", "")
    assert said(warm.REAL, "-c", code) == (0, "False []\n", "")


@pytest.mark.parametrize(
    ("code", "ends"),
    [
        ("", 0),
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('so it says')", 1),
        ("1 / 0", 1),
        ("import os; os._exit(4)", 4),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("import atexit; atexit.register(print, 'at its end')", 0),
    ],
)
def test_it_ends_as_the_real_one_does(code, ends):
    warmly, really = said(os.environ[warm.NAME], "-c", code), said(warm.REAL, "-c", code)
    assert warmly[:2] == really[:2]
    assert warmly[0] == ends
    assert warmly[2].splitlines()[-1:] == really[2].splitlines()[-1:]


def test_arguments_folder_environment_and_streams_are_its_own(python, tmp_path):
    (tmp_path / "beside.py").write_text("name = 'beside'")
    code = """
import os, sys
import beside
print(sys.argv, sys.path[0], os.getcwd(), os.environ["WORD"], beside.name, sys.stdin.read(),
sys.executable)
print("wrong", file=sys.stderr)
os.write(int(sys.argv[-1]), b"through a pipe")
"""
    reads, writes = os.pipe()
    words = ["a word", "-m", "", str(writes)]
    given = {
        "cwd": tmp_path,
        "env": os.environ | {"WORD": "ü"},
        "input": "typed",
        "pass_fds": [writes],
    }
    (tmp_path / "script.py").write_text(code)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(code)
    places = [
        (["-c", code], "-c", ""),
        (["-B", "-u", "-m", "package"], str(tmp_path / "package" / "__main__.py"), str(tmp_path)),
        ([str(tmp_path / "script.py")], str(tmp_path / "script.py"), str(tmp_path)),
    ]
    for way, called, first in places:
        out = f"{[called, *words]} {first} {tmp_path} ü beside typed {python}\n"
        assert said(python, *way, *words, **given) == (0, out, "wrong\n")
        assert os.read(reads, 100) == b"through a pipe"
    os.close(writes)
    assert os.read(reads, 1) == b""  # nobody else has kept it open
    os.close(reads)


def test_closed_streams_are_none(python):
    code = "import sys; sys.exit(sys.stdin is sys.stderr is None and sys.stdout is not None)"
    assert said("sh", "-c", 'exec "$@" <&- 2>&-', "sh", python, "-c", code)[0] == 1


def test_another_process_is_started_from_within(python):
    code = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
import os
with ProcessPoolExecutor(1, get_context("spawn")) as pool:
    print(pool.submit(int, "7").result())
"""
    assert said(python, "-c", code)[:2] == (0, "7\n")


def test_flags_that_it_does_not_know_are_the_real_interpreters(python):
    assert said(python, "-X", "utf8", "-c", "import sys; print(sys.flags.utf8_mode)") == (
        0,
        "1\n",
        "",
    )
    assert (
        said(
            python,
            "-c",
            "import sys; print(sys.flags.utf8_mode)",
            env=os.environ | {"PYTHONUTF8": "1"},
        )[1]
        == "1\n"
    )
    assert said(python, "--version")[1].startswith("Python 3")


def running(python, code):
    """A process, and a pipe of which it has one end."""
    return subprocess.Popen([python, "-u", "-c", code], stdout=subprocess.PIPE, text=True)


def test_signals_reach_it(python):
    code = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(9))
print("ready")
while True:
    time.sleep(0.05)
"""
    with running(python, code) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 9
    with running(python, code) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM


def test_killed_it_is_gone(python):
    with running(python, "import os, time; print(os.getpid()); time.sleep(600)") as process:
        number = int(process.stdout.readline())
        assert Path(f"/proc/{number}").exists()
        process.kill()
        assert process.communicate(timeout=60) == ("", None)  # its end of the pipe is closed
        assert process.returncode == -signal.SIGKILL
    until(lambda: not Path(f"/proc/{number}").exists())


def test_without_a_server_it_is_the_real_one(tmp_path):
    program, end = warm.start()
    alone = shutil.copy(program, tmp_path / "python")
    end()
    assert not Path(program).exists()
    code = "import sys; print('torch' in sys.modules, sys.executable)"
    assert said(str(alone), "-c", code) == (0, f"False {warm.REAL}\n", "")
