"""Compiles the training step of every cell for accelerators that need not be there.

What TensorFlow lowers a training step to, with the loop of this package in it, goes through XLA's
own compilers for TPU v5e, TPU v6e and NVIDIA H100. That tells whether it compiles, how long that
takes and how much memory the program wants. Nothing is executed: neither results nor speed are
checked. Two environments, since the packages do not agree, and text files between them:

    pip install "jax[tpu]==0.10.2"
    pip install --no-deps jax-cuda12-plugin==0.10.2 jax-cuda12-pjrt==0.10.2

    python benchmarks/ahead_of_time.py lower build/steps    # in the environment of TensorFlow
    python benchmarks/ahead_of_time.py compile build/steps  # in that of these two commands

The second writes `results/ahead-of-time.json` and, with all cells, the table in `README.md`.

XLA counts the bytes that a loop accesses as if it ran once. Here each loop body is cut out of the
compiled program, counted by XLA as a program of its own, and multiplied by its number of steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
JAX = "0.10.2"
TARGETS = ("TPU v5e", "TPU v6e", "NVIDIA H100")
NOTHING = "func.func public @main(%x: tensor<f32>) -> tensor<f32> {return %x : tensor<f32>}"
START, END = "<!-- ahead of time -->", "<!-- end of ahead of time -->"


def write(path: Path, text: str) -> None:
    """Writes all of a file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


# In the environment of TensorFlow.


def lowered(layer: Any, shape: tuple[int, ...]) -> str:
    """The StableHLO of one training step without optimizer: loss, gradients by input and weights.

    Weights are arguments: a variable would tie the program to this machine.
    """
    import tensorflow as tf

    layer.build(shape)

    @tf.function(jit_compile=True, autograph=False)
    def step(x, *weights):
        with tf.GradientTape() as tape:
            tape.watch([x, *weights])
            outputs, _ = layer.stateless_call(list(weights), [], x, training=True)
            loss = tf.reduce_mean(outputs * outputs)
        return [loss, *tape.gradient(loss, [x, *weights])]

    specs = [tf.TensorSpec(w.shape, w.dtype) for w in layer.trainable_variables]
    ir = step.experimental_get_compiler_ir(tf.TensorSpec(shape), *specs)
    return ir(stage="stablehlo", platform_name="CPU")


def operations(module: str) -> Counter:
    return Counter(re.findall(r"\bstablehlo\.\w+", module))


def lower(folder: Path, shape: tuple[int, ...], only: list[str] | None) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    import keras_rnncells as kr
    from keras_rnncells.recurrence import SCANS

    batch, steps, features, units = shape
    files = {}
    for name in only or kr.cells.CELLS:

        def step(scan, row=kr.cells.CELLS[name]):
            layer = row.layer(units, return_sequences=True, scan=scan)
            return lowered(layer, (batch, steps, features))

        of_keras = operations(step("keras"))
        for scan in ("sequential", "parallel"):
            if scan not in SCANS or (scan == "parallel" and name != "IndRNN"):
                continue
            start = time.perf_counter()
            text = step(scan)
            if operations(text) == of_keras:
                sys.exit(f'{name}: scan="{scan}" lowers to Keras\' loop, not to that of ours.')
            label = name if scan == "sequential" else f"{name} ({scan})"
            files[label] = f"{name}-{scan}.mlir"
            write(folder / files[label], text)
            print(f"{label}: lowered in {time.perf_counter() - start:.1f} s", flush=True)
    on = {
        "keras_rnncells": kr.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
    }
    document = {"shape": shape, "on": on, "files": files, "all": not only}
    write(folder / "steps.json", json.dumps(document, indent=1) + "\n")


# In the environment of JAX, whose private modules these functions use: the version is fixed.


def devices() -> dict[str, Any]:
    """A device of each target, known by its description alone."""
    os.environ.update(
        JAX_PLATFORMS="cpu",
        TF_CPP_MIN_LOG_LEVEL="3",
        TPU_SKIP_MDS_QUERY="1",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
        TPU_WORKER_HOSTNAMES="localhost",
    )
    try:
        import jax
    except ImportError:
        sys.exit(f"There is no JAX here.\n\n{__doc__}")
    if jax.__version__ != JAX:
        sys.exit(
            f"This script uses private modules of jax=={JAX}. Received jax=={jax.__version__}. "
            "Install that version, in an environment of its own."
        )
    from jax.experimental import topologies

    jax.devices()  # registers the plugins
    described = (
        {"platform": "tpu", "topology_name": "v5e:2x2"},
        {"platform": "tpu", "topology_name": "v6e:2x2"},
        {"platform": "cuda", "topology": "1x1x1", "target_config": h100()},
    )
    found = {}
    for name, description in zip(TARGETS, described, strict=True):
        try:
            found[name] = topologies.get_topology_desc(**description).devices[0]
        except (RuntimeError, ValueError, ImportError) as error:
            sys.exit(f"There is no compiler for {name} here: {error}\n\n{__doc__}")
    return found


def h100() -> str:
    """NVIDIA H100 SXM, as XLA describes a GPU."""
    numbers = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_block_optin": 232448,
        "shared_memory_per_core": 233472,
        "threads_per_core_limit": 2048,
        "core_count": 132,
        "fpus_per_core": 128,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "memory_bandwidth": 3_350_000_000_000,
        "l2_cache_size": 50 << 20,
        "clock_rate_ghz": 1.5,
        "device_memory_size": 80 << 30,
    }
    info = " ".join(f"{name}: {number}" for name, number in numbers.items())
    return (
        f"gpu_device_info {{ {info} cuda_compute_capability {{ major: 9 minor: 0 }} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 7 } '
        'runtime_version { major: 12 minor: 8 } device_description_str: "H100"'
    )


def executable(device: Any, module: str) -> Any:
    import numpy as np
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jax._src.lib.mlir import ir

    options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
    options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id]], "int32"))
    with mlir.make_ir_context():
        return device.client.compile(
            ir.Module.parse(module),
            executable_devices=xla_client.DeviceList((device,)),
            compile_options=options,
        )


def counted(module: str, computation: str) -> float:
    """The bytes that one computation of a compiled program accesses, its loops run once."""
    import jax
    from jaxlib import _hlo, _jax

    _, _, computations = module.partition("\n")
    computations = re.sub(r"^ENTRY ", "", computations, flags=re.M)
    computations = computations.replace(f"\n{computation} (", f"\nENTRY {computation} (", 1)
    part = _hlo.hlo_module_from_text(f"HloModule part\n{computations}")
    return _jax.hlo_module_cost_analysis(jax.devices()[0].client, part).get("bytes accessed", 0.0)


def lines_of(module: str, computation: str) -> list[str]:
    [text] = re.findall(
        rf"^(?:ENTRY )?{re.escape(computation)} \(.*?^}}", module, flags=re.M | re.S
    )
    return text.split("\n")


def loops_of(module: str, computation: str, steps: int) -> list[dict]:
    """The loops that stand in a computation, and how often their bodies run.

    Where the compiler does not state it, it is what the condition compares with; one that only asks
    whether the count is still positive belongs to a loop backward through all `steps`.
    """
    loops = []
    for line in lines_of(module, computation):
        if " while(" not in line:
            continue
        condition, body = (
            re.search(rf"\b{part}=(%[\w.-]+)", line).group(1) for part in ("condition", "body")
        )
        stated = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
        if stated:
            times = int(stated.group(1))
        else:
            limits = re.findall(r"\bconstant\((-?\d+)\)", "".join(lines_of(module, condition)))
            times = max([int(limit) for limit in limits], default=0) or steps
        loops.append({"times": times, "stated": bool(stated), "condition": condition, "body": body})
    return loops


def accessed(module: str, computation: str, steps: int) -> tuple[float, list[dict]]:
    """The bytes that a computation accesses, its loops run as often as they run; and its loops."""
    total, found = counted(module, computation), []
    for loop in loops_of(module, computation, steps):
        parts = loop.pop("condition"), loop.pop("body")
        once = sum(counted(module, part) for part in parts)
        each, inner = zip(*(accessed(module, part, steps) for part in parts), strict=True)
        total += loop["times"] * sum(each) - once
        found += [{**loop, "bytes": sum(each)}, *sum(inner, [])]
    return total, found


def analysed(program: Any, steps: int) -> dict[str, Any]:
    """What XLA tells of a compiled program."""
    memory = program.get_compiled_memory_stats()
    [module] = [m.to_string() for m in program.hlo_modules()]
    try:
        entry = re.search(r"^ENTRY (\S+)", module, flags=re.M).group(1)
        total, loops = accessed(module, entry, steps)
        if len(loops) != module.count(" while("):
            raise ValueError("there are loops that are not reached through loops alone")
    except (RuntimeError, ValueError) as error:
        print(f"  bytes accessed stay unknown: {error}", flush=True)
        total, loops = None, None
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "accessed_bytes": total,
        "loops": loops,
    }


def compiled(device: Any, module: str, steps: int) -> dict[str, Any]:
    """The time of the compiler and what it made, or what it says against the module."""
    start, start_cpu = time.perf_counter(), time.process_time()
    try:
        program = executable(device, module)
    except RuntimeError as error:
        return {"error": str(error).partition("\n")[0]}
    return {
        "compile_seconds": time.perf_counter() - start,
        "compile_cpu_seconds": time.process_time() - start_cpu,
        **analysed(program, steps),
    }


def compile_all(folder: Path) -> None:
    targets = devices()
    import jax

    document = json.loads((folder / "steps.json").read_text())
    files, every = document.pop("files"), document.pop("all")
    document["on"] |= {"jax": jax.__version__, "python": platform.python_version()}
    document |= {"executed": False, "results": {name: {} for name in files}}
    for target, device in targets.items():
        executable(device, NOTHING)  # starts the compiler
        for name, file in files.items():
            found = compiled(device, (folder / file).read_text(), document["shape"][1])
            document["results"][name][target] = found
            what = found.get("error") or f"{found['compile_cpu_seconds']:.1f} s of CPU time"
            print(f"{target}, {name}: {what}", flush=True)
    text = table(document)
    print(text)
    if not every:
        return
    write(HERE / "results" / "ahead-of-time.json", json.dumps(document, indent=1) + "\n")
    readme = HERE / "README.md"
    head, _, rest = readme.read_text().partition(START)
    _, _, tail = rest.partition(END)
    write(readme, f"{head}{START}\n{text}\n{END}{tail}")


def table(document: dict) -> str:
    """The results in Markdown."""
    batch, steps, features, units = document["shape"]
    lines = [
        "**Compiled only: none of it was executed**, so that these are no measurements of speed, "
        f"and no results were checked. One training step, batch {batch}, {steps} steps, "
        f"{features} features, {units} units, float32; forward, backward and input gradient; "
        f"{', '.join(f'{k} {v}' for k, v in document['on'].items())}. Memory in MB, as the "
        "compiler plans it; what a TPU keeps on the chip is not in it. Bytes accessed, in MB, are "
        "XLA's count for the compiled program, on the chip or off it, each loop body as often as "
        "it runs.",
        "",
        "| cell | target | compile time (CPU) | arguments | outputs | temporary | bytes accessed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in document["results"].items():
        for target, result in found.items():
            if "error" in result:
                lines.append(f"| {name} | {target} | does not compile | - | - | - | - |")
                continue
            sizes = [
                result[f"{kind}_bytes"] for kind in ("argument", "output", "temporary", "accessed")
            ]
            numbers = ["-" if size is None else f"{size / 1e6:.1f}" for size in sizes]
            seconds = f"{result['compile_cpu_seconds']:.1f} s"
            lines.append(f"| {name} | {target} | {seconds} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("lower", help="write what TensorFlow lowers the steps to")
    first.add_argument("--shape", default="32x784x128x128", help="batch x steps x features x units")
    first.add_argument("--only", help="cells, separated by commas; then the README stays")
    second = commands.add_parser("compile", help="compile that, in an environment with JAX")
    for command in (first, second):
        command.add_argument("folder", type=Path, help="where the lowered steps are")
    options = parser.parse_args()
    if options.command == "compile":
        compile_all(options.folder)
        return
    only = options.only.split(",") if options.only else None
    lower(options.folder, tuple(int(size) for size in options.shape.split("x")), only)


if __name__ == "__main__":
    main()
