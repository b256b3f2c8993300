"""Starts a script in several processes on this machine, and all of them again when one dies.

    python examples/distributed/launch.py --processes 2 examples/distributed/multi_worker.py

Synchronous training waits for every process, so that one that died ends it for all: the others are
killed, and all start again and go on from the last checkpoint. What tells each process its place
are the environment variables of TensorFlow and of Keras, as on a cluster.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

HERE = "127.0.0.1"


def addresses(count: int) -> list[str]:
    """Ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HERE, 0))
        return [f"{HERE}:{each.getsockname()[1]}" for each in sockets]


def place(everyone: list[str], index: int) -> dict[str, str]:
    """The variables that say which of the processes one is."""
    task = {"cluster": {"worker": everyone}, "task": {"type": "worker", "index": index}}
    return {
        "TF_CONFIG": json.dumps(task),
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": ",".join(everyone),
        "KERAS_DISTRIBUTION_NUM_PROCESSES": str(len(everyone)),
        "KERAS_DISTRIBUTION_PROCESS_ID": str(index),
    }


def run(command: list[str], processes: int) -> bool:
    """Whether all processes ended well. When one does not, the others are killed."""
    everyone = addresses(processes)
    running = []
    try:
        for index in range(processes):
            env = {**os.environ, **place(everyone, index)}
            running.append(subprocess.Popen(command, env=env))
            print(f"Process {index} is {running[-1].pid}.", flush=True)
        while None in (codes := [process.poll() for process in running]):
            if any(codes):
                break
            time.sleep(0.1)
        for index, code in enumerate(codes):
            if code:
                print(f"Process {index} ended with {code}.", flush=True)
        return not any(codes)
    finally:
        for process in running:
            # Not SIGTERM: JAX takes that for a notice, and goes on waiting.
            process.kill()
            process.wait()


def main(argv: list[str] | None = None) -> None:
    made = argparse.ArgumentParser(
        prog="python examples/distributed/launch.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--processes", type=int, default=2, help="(default: 2)")
    made.add_argument("--restarts", type=int, default=3, help="at most (default: 3)")
    made.add_argument("script")
    made.add_argument("options", nargs=argparse.REMAINDER, help="of the script")
    args = made.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated."))  # by way of `finally`

    command = [sys.executable, args.script, *args.options]
    for attempt in range(args.restarts + 1):
        if attempt:
            print(f"Starts all processes again ({attempt} of {args.restarts}).", flush=True)
        if run(command, args.processes):
            return
    sys.exit(f"Gave up after {args.restarts} restarts.")


if __name__ == "__main__":
    main()
