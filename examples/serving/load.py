"""How many speakers can be listened to at once? Concurrent sessions, each step by step.

    python examples/serving/load.py --sessions 32                                # without a server
    python examples/serving/load.py --sessions 32 --url grpc://localhost:8500
    python examples/serving/load.py --sessions 32 --url grpc://localhost:8500 --together

A session takes its next step when the last one is answered. Each sends its own requests, which a
server may batch; with `--together` one request carries a step of all of them, as from a gateway.
"""

from __future__ import annotations

import json
import threading
import time

import numpy as np
from digits import BANDS, HOP, RATE
from listen import options, the_model

from keras_rnncells import serving


def measure(
    model: serving.StreamingModel, sessions: int, seconds: float, together: bool
) -> dict[str, float]:
    """Runs the sessions for so long, and tells latencies in milliseconds and steps a second."""
    opened = [model.session() for _ in range(sessions)]
    rows = np.random.default_rng(0).normal(size=(sessions, BANDS)).astype("float32")
    groups = (
        [(rows, opened)] if together else [(rows[i : i + 1], [s]) for i, s in enumerate(opened)]
    )
    for x, group in groups:
        model.step(x, sessions=group)  # the first one connects
    found: list[list[float]] = [[] for _ in groups]
    errors: list[BaseException] = []
    end = time.perf_counter() + seconds

    def listen(i: int) -> None:
        x, group = groups[i]
        try:
            while (now := time.perf_counter()) < end:
                model.step(x, sessions=group)
                found[i].append(time.perf_counter() - now)
        except BaseException as error:  # told by the main thread
            errors.append(error)

    threads = [threading.Thread(target=listen, args=(i,)) for i in range(len(groups))]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if errors:
        raise errors[0]
    latencies = 1000 * np.concatenate(found)
    steps = len(latencies) * sessions / len(groups)
    return {
        "sessions": sessions,
        "requests": len(latencies),
        **{f"p{p}_ms": round(float(np.percentile(latencies, p)), 2) for p in (50, 95, 99)},
        "steps_per_second": round(steps / took, 1),
        # A speaker brings 100 frames a second.
        "speakers_at_once": int(steps / took * HOP / RATE),
    }


def main(argv: list[str] | None = None) -> None:
    parser = options(__doc__)
    add = parser.add_argument
    add("--sessions", type=int, default=16, help="(default: 16)")
    add("--seconds", type=float, default=10, help="(default: 10)")
    add("--together", action="store_true", help="all sessions in each request")
    args = parser.parse_args(argv)
    if args.sessions < 1 or args.seconds <= 0:
        parser.error("--sessions must be 1 or more, and --seconds more than 0")
    print(json.dumps(measure(the_model(args), args.sessions, args.seconds, args.together)))


if __name__ == "__main__":
    main()
