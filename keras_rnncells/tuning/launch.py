"""A search with several workers on one machine.

```sh
python -m keras_rnncells.tuning.launch --workers 2 -- python tune.py
```
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

from keras_rnncells import checks

HOST = "127.0.0.1"
GRACE = 10.0  # seconds from asking a process to end until it is killed

# Becomes the command, in a process that Linux kills when the launcher has died, however it died.
LEASHED = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


def launch(
    command: Sequence[str], workers: int, *, port: int | None = None, max_restarts: int = 5
) -> int:
    """Runs a search of KerasTuner with a chief and several workers on this machine.

    The command is run once for the chief, which has the oracle and trains nothing, and once for
    each worker; KerasTuner tells them apart by `KERASTUNER_TUNER_ID`. All must be given the same
    `directory`, and not `overwrite=True`, with which each deletes what the others have done.

    A process that fails or is killed is started again under its id. A worker then repeats the
    trial that it was in: without it the chief waits for that trial for ever. A chief goes on from
    what is in `directory`, while the workers wait for it, and hands out anew the trials that were
    running: a worker may get one that another is still in, and then both train it. All has ended
    when the chief has, which looks every 20 seconds whether the workers are done.

    Lines of output have the id before them. The chief is given no GPU; of the GPUs in
    `CUDA_VISIBLE_DEVICES`, if that is set, each worker is given one in turn, of whose memory it
    takes what it needs. Each worker computes with all cores, unless `TF_NUM_INTRAOP_THREADS` says
    how many threads it has.

    Args:
        command: The program and its arguments, such as `["python", "tune.py"]`.
        workers: Positive integer.
        port: Integer, at which the chief listens, on this machine only. By default a free one.
        max_restarts: Integer of at least 0, how often one process is started again before all are
            ended.

    Returns:
        0 when the search is done; else the exit code of the process that was not started again,
        with 128 added to the number of a signal, as in a shell. A SIGINT or SIGTERM is handed on to
        all processes, and ends them. If this process itself is killed, Linux kills them; other
        systems leave them, and none ends what a command itself has left in the background.

    Raises:
        ValueError: If an argument is not allowed.

    Example:

    ```python
    launch([sys.executable, "tune.py", "--output", "search"], workers=2)
    ```
    """
    if isinstance(command, str) or not command:
        raise ValueError(
            "`command` must be a list of a program and its arguments, such as "
            f"['python', 'tune.py']. Received: command={command!r}."
        )
    if shutil.which(command[0]) is None:
        raise ValueError(f"There is no program {command[0]!r}. Received: command={command!r}.")
    checks.positive_integer("workers", workers)
    checks.natural("max_restarts", max_restarts)
    port = port or _free_port()
    chief = _Member("chief", command, {**_environment("chief", port), "CUDA_VISIBLE_DEVICES": "-1"})
    team = [chief]
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    for index in range(workers):
        environment = _environment(f"tuner{index}", port)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
        team.append(_Member(f"tuner{index}", command, environment))
    with _signals() as received:
        try:
            return _run(chief, team, max_restarts, received)
        finally:
            _end(team, received[0] if received else signal.SIGTERM)


def _run(chief: _Member, team: list[_Member], max_restarts: int, received: list[int]) -> int:
    """Keeps all running until the chief is done."""
    for member in team:
        member.start()
    while not received:
        for member in team:
            code = member.code()
            if not code:
                continue
            fate = f"{member.tuner_id} ended {_manner(code)}"
            done = [m for m in team if m is not chief and m.code() == 0]
            if member is chief and len(done) == len(team) - 1:
                _say(f"{fate} after the search.")
                return _exit_code(code)
            if member.restarts >= max_restarts:
                _say(
                    f"{fate}: giving up, since it has been started again {max_restarts} times. "
                    "The same command goes on with the search."
                )
                return _exit_code(code)
            member.restarts += 1
            _say(f"{fate}: started again ({member.restarts} of {max_restarts} times).")
            member.start()
            if member is chief:
                # It waits for workers whose last trials it has on disk as running, as a kill
                # may leave them.
                for each in done:
                    each.start()
        if chief.code() == 0:
            _wait(team, GRACE)
            return 0
        time.sleep(0.1)
    return 128 + received[0]


class _Member:
    """The chief or a worker: one process after another under the same id."""

    def __init__(self, tuner_id: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.tuner_id = tuner_id
        self.command = list(command)
        self.environment = environment
        self.restarts = 0
        self.process: subprocess.Popen | None = None
        self.printer: threading.Thread | None = None

    def start(self) -> None:
        command = self.command
        if sys.platform == "linux":
            command = [sys.executable, "-ISc", LEASHED, str(os.getpid()), *command]
        self.process = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,  # so that it can be ended together with what it has started
        )
        self.printer = threading.Thread(
            target=_print_lines, args=(self.process.stdout, self.tuner_id), daemon=True
        )
        self.printer.start()

    def code(self) -> int | None:
        """Its exit code, negative for a signal; `None` while it runs."""
        return self.process and self.process.poll()

    def send(self, signum: int) -> None:
        """Sends a signal to it and what it has started."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signum)


def _end(team: list[_Member], signum: int) -> None:
    """Ends all that still run."""
    for member in team:
        member.send(signum)
    _wait(team, GRACE)
    for member in team:
        member.send(signal.SIGKILL)
    _wait(team, GRACE)
    for member in team:
        if member.printer:
            member.printer.join(1)


def _wait(team: list[_Member], seconds: float) -> None:
    """Waits until all have ended, `seconds` at most."""
    end = time.monotonic() + seconds
    while any(m.process and m.code() is None for m in team) and time.monotonic() < end:
        time.sleep(0.05)


@contextlib.contextmanager
def _signals():
    """A list that receives SIGINT and SIGTERM; only the main thread can."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    both = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(s, lambda signum, frame: received.append(signum)) for s in both]
    try:
        yield received
    finally:
        for signum, handler in zip(both, before, strict=True):
            signal.signal(signum, handler)


def _environment(tuner_id: str, port: int) -> dict[str, str]:
    environment = {
        "PYTHONUNBUFFERED": "1",  # else lines come late through a pipe
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # else the first on a GPU takes all of it
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the same for JAX
        **os.environ,
        "KERASTUNER_TUNER_ID": tuner_id,
        "KERASTUNER_ORACLE_IP": HOST,
        "KERASTUNER_ORACLE_PORT": str(port),
    }
    # Else gRPC asks a proxy, where there is one, for this machine.
    without = environment.get("no_grpc_proxy") or environment.get("no_proxy")
    environment["no_grpc_proxy"] = f"{without},{HOST}" if without else HOST
    return environment


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return free.getsockname()[1]


def _print_lines(lines: IO[str], tuner_id: str) -> None:
    with lines:
        for line in lines:
            _say(line.rstrip("\n"), tuner_id)


def _say(line: str, tuner_id: str = "launch") -> None:
    sys.stdout.write(f"[{tuner_id}] {line}\n")
    sys.stdout.flush()


def _exit_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _manner(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m keras_rnncells.tuning.launch",
        description="Runs a search of KerasTuner with a chief and several workers on this machine, "
        "and starts again those that fail or are killed.",
        usage="%(prog)s [options] -- command ...",
    )
    parser.add_argument("--workers", type=int, default=2, help="how many (default: %(default)s)")
    parser.add_argument("--port", type=int, help="of the chief (default: a free one)")
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=5,
        help="how often one process is started again (default: %(default)s)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="such as: python tune.py")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    try:
        return launch(
            command, options.workers, port=options.port, max_restarts=options.max_restarts
        )
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
