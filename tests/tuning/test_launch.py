"""Searches in several processes: what is killed is started again, and nothing is lost or left."""

import collections
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import keras
import pytest

pytest.importorskip("keras_tuner", reason="keras_tuner is not installed")

from keras_rnncells.tuning import launch as launcher
from keras_rnncells.tuning.launch import launch

# KerasTuner asks Python for the thread by an old name.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner"),
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="the launcher knows of no backend"
    ),
    pytest.mark.skipif(sys.platform == "win32", reason="it uses POSIX signals and process groups"),
]
ROOT = pathlib.Path(__file__).parents[2]
SEARCH = ROOT / "tests/tuning/search.py"

# What every process of a pretended search begins with. `turn` counts the starts under one id.
PRETENDED = """
import os, pathlib, signal, sys, time
me = os.environ["KERASTUNER_TUNER_ID"]
folder = pathlib.Path(sys.argv[1])
with open(folder / f"{me}.pid", "a") as file:
    file.write(f"{os.getpid()}\\n")
turn = len((folder / f"{me}.pid").read_text().split())
def wait(*names):
    while not all((folder / name).exists() for name in names):
        time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def _find_the_package(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def pretend(tmp_path, code):
    return [sys.executable, "-c", PRETENDED + code, str(tmp_path)]


def pids(tmp_path, name="*"):
    return [int(pid) for file in tmp_path.glob(f"{name}.pid") for pid in file.read_text().split()]


def alive(pid):
    """Whether there is such a process; one that is dead but not yet waited for does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def results(folder):
    """The trials on disk, and who began them."""
    project = folder / "untitled_project"
    files = sorted(project.glob("trial_*/trial.json"))
    oracle = json.loads((project / "oracle.json").read_text())
    begun = [line.split() for line in (folder / "begun.txt").read_text().splitlines()]
    return [json.loads(f.read_text()) for f in files], oracle["end_order"], begun


def check_nothing_is_lost(folder, victim):
    trials, ended, begun = results(folder)
    assert [t["status"] for t in trials] == ["COMPLETED"] * 5
    assert sorted(ended) == [t["trial_id"] for t in trials]
    counts = collections.Counter(trial for _, trial in begun)
    (again,) = [trial for trial, count in counts.items() if count > 1]
    assert sorted(counts.values()) == [1, 1, 1, 1, 2]
    assert [who for who, trial in begun if trial == again] == [victim] * 2


def test_killed_worker_takes_its_trial_over(tmp_path, capfd):
    assert launch([sys.executable, "-W", "ignore", str(SEARCH), str(tmp_path), "tuner0"], 2) == 0
    check_nothing_is_lost(tmp_path, "tuner0")
    assert {who for who, _ in results(tmp_path)[2]} == {"tuner0", "tuner1"}
    assert "[launch] tuner0 ended by SIGKILL: started again" in capfd.readouterr().out


def test_killed_search_goes_on(tmp_path):
    command = [sys.executable, "-W", "ignore", str(SEARCH), str(tmp_path), "tuner0"]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert [t["status"] for t in results(tmp_path)[0]] == ["COMPLETED", "RUNNING"]
    from tests.tuning.search import search

    search(tmp_path)
    check_nothing_is_lost(tmp_path, "tuner0")


def test_environment(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setenv("no_proxy", "example.org")
    names = ["KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "CUDA_VISIBLE_DEVICES"]
    code = f"print(*[os.environ[n] for n in {names}], os.environ['no_grpc_proxy'], flush=True)\n"
    code += "wait('tuner0.pid', 'tuner1.pid', 'tuner2.pid')"
    assert launch(pretend(tmp_path, code), 3, port=4321) == 0
    lines = set(capfd.readouterr().out.splitlines())
    gpus = {"chief": -1, "tuner0": 4, "tuner1": 5, "tuner2": 4}
    assert lines == {f"[{i}] 127.0.0.1 4321 {g} example.org,127.0.0.1" for i, g in gpus.items()}


def test_worker_that_goes_on_failing(tmp_path, capfd):
    code = "sys.exit(7) if me == 'tuner1' else time.sleep(600)"
    assert launch(pretend(tmp_path, code), 2, max_restarts=2) == 7
    out = capfd.readouterr().out
    assert out.count("tuner1 ended with exit code 7: started again") == 2
    assert "tuner1 ended with exit code 7: giving up" in out
    assert len(pids(tmp_path, "tuner1")) == 3 and len(pids(tmp_path, "tuner0")) == 1
    assert not any(map(alive, pids(tmp_path)))


def test_killed_chief_finds_its_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "GRACE", 0.5)
    # tuner1 has already ended; the chief may have its trial on disk as one that runs.
    code = """
if me == "chief" and turn == 1:
    wait("tuner0.pid", "tuner1.done")
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
if me == "chief":
    wait("tuner1.again")
if me == "tuner0":
    time.sleep(600)
(folder / f"{me}.{'done' if turn == 1 else 'again'}").touch()
"""
    assert launch(pretend(tmp_path, code), 2) == 0
    assert {n: len(pids(tmp_path, n)) for n in ("chief", "tuner0", "tuner1")} == {
        "chief": 2,
        "tuner0": 1,
        "tuner1": 2,
    }
    assert not any(map(alive, pids(tmp_path)))


def test_chief_that_fails_after_the_search(tmp_path, capfd):
    code = """
if me == "chief":
    wait("tuner0.pid", "tuner1.pid")
    time.sleep(1)
    sys.exit(3)
"""
    assert launch(pretend(tmp_path, code), 2) == 3
    assert "chief ended with exit code 3 after the search" in capfd.readouterr().out
    assert len(pids(tmp_path)) == 3


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_handed_on(tmp_path, monkeypatch, signum):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals reach the main thread")
    monkeypatch.setattr(launcher, "GRACE", 1.0)
    before = signal.getsignal(signum)
    # tuner0 hears the signal, tuner1 does not want to; both have a child.
    code = """
import subprocess
child = subprocess.Popen(["sleep", "600"])
(folder / f"{me}-child.pid").write_text(str(child.pid))
def hear(signum, frame):
    if me == "tuner0":
        (folder / str(signum)).touch()
        sys.exit(0)
for s in (signal.SIGINT, signal.SIGTERM):
    signal.signal(s, hear)
(folder / f"{me}.ready").touch()
if me == "chief":
    wait("tuner0.ready", "tuner1.ready")
    os.kill(PARENT, SIGNAL)
while True:
    time.sleep(0.1)
""".replace("PARENT", str(os.getpid())).replace("SIGNAL", str(int(signum)))
    assert launch(pretend(tmp_path, code), 2) == 128 + signum
    assert (tmp_path / str(int(signum))).exists()
    assert len(pids(tmp_path)) == 6 and not any(map(alive, pids(tmp_path)))
    assert signal.getsignal(signum) is before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_killed_launcher_leaves_nothing(tmp_path):
    module = [sys.executable, "-W", "ignore", "-m", "keras_rnncells.tuning.launch"]
    command = [*module, "--workers", "1", "--", *pretend(tmp_path, "time.sleep(600)")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while len(pids(tmp_path)) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    end = time.monotonic() + 10
    while any(map(alive, pids(tmp_path))) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, pids(tmp_path)))


def test_command_line(capsys, monkeypatch):
    given = []
    monkeypatch.setattr(launcher, "launch", lambda *args, **kwargs: given.append((args, kwargs)))
    launcher.main(["--workers", "3", "--max-restarts", "1", "--", "python", "a.py", "--workers=4"])
    assert given == [((["python", "a.py", "--workers=4"], 3), {"port": None, "max_restarts": 1})]
    monkeypatch.undo()
    with pytest.raises(SystemExit, match="2"):
        launcher.main(["--workers", "2"])
    assert re.search("must be a list of a program", capsys.readouterr().err)


@pytest.mark.parametrize(
    "command, arguments, message",
    [
        ("python tune.py", {}, "list"),
        ([], {}, "list"),
        (["no-such-program"], {}, "no-such-program"),
        ([sys.executable], {"workers": 0}, "workers"),
        ([sys.executable], {"max_restarts": -1}, "max_restarts"),
        ([sys.executable], {"max_restarts": 1.5}, "max_restarts"),
    ],
)
def test_wrong_arguments(command, arguments, message):
    with pytest.raises(ValueError, match=message):
        launch(command, **{"workers": 1, **arguments})
