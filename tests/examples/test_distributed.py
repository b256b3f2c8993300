"""Each way to distribute finds the losses of one device, also when a process is killed."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from tests.examples.conftest import EXAMPLES

DISTRIBUTED = EXAMPLES / "distributed"
SMALL = ["--timesteps", "8", "--units", "4", "--batch-size", "8", "--steps", "3", "--epochs", "4"]
# SGD: Adam would hide a factor.
SMALL += ["--optimizer", "sgd", "--learning-rate", "0.1", "--seed", "1"]

ON = {
    backend: pytest.mark.skipif(
        keras.backend.backend() != backend
        or [int(number) for number in keras.version().split(".")[:2]] < [3, 9],
        reason=f"runs on {backend}, with Keras 3.9: before, its mean over devices was another",
    )
    for backend in ("tensorflow", "jax")
}

# The last process kills itself in the middle of the third epoch, the first time.
DIES = """
    import importlib, os, pathlib, signal, sys

    folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, str(folder))
    import training

    index, count = (
        int(os.environ["KERAS_DISTRIBUTION_" + each]) for each in ("PROCESS_ID", "NUM_PROCESSES")
    )
    died = pathlib.Path(__file__).with_suffix(".died")

    class Dies(training.Checkpoints):
        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch, index) == (2, 1, count - 1) and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    training.Checkpoints = Dies
    importlib.import_module(name).main(sys.argv[3:])
"""


def launch(*arguments):
    """What the launcher says, and how it ends."""
    command = [sys.executable, DISTRIBUTED / "launch.py", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        printed, _ = process.communicate(timeout=400)
    finally:
        process.terminate()  # ends those that it started, if they hang
        process.wait()
    return printed, process.returncode


@pytest.fixture
def training(example, monkeypatch):
    monkeypatch.syspath_prepend(DISTRIBUTED)
    return example("training")


@pytest.mark.parametrize(
    "name, processes, own, devices",
    [
        pytest.param("mirrored", 1, ["--cpu-devices", "2"], 2, marks=ON["tensorflow"]),
        pytest.param("multi_worker", 2, [], 2, marks=ON["tensorflow"]),
        pytest.param("data_parallel", 2, ["--cpu-devices", "2"], 4, marks=ON["jax"]),
    ],
)
def test_killed_and_restarted_is_the_curve_of_one_device(
    name, processes, own, devices, training, tmp_path
):
    script = tmp_path / "dies.py"
    script.write_text(textwrap.dedent(DIES))
    output = tmp_path / "output"
    printed, code = launch(
        *("--processes", str(processes), "--restarts", "1", script, DISTRIBUTED, name),
        *(*SMALL, *own, "--output", output),
    )
    assert code == 0, printed[-5000:]
    assert f"Process {processes - 1} ended with -9." in printed
    assert printed.count("Starts all processes again") == 1, printed[-5000:]
    assert printed.count("Goes on after epoch 2.") == processes
    result = json.loads((output / f"{name}.json").read_text())
    assert (result["devices"], result["steps"]) == (devices, [3, 6, 9, 12])

    args = training.options(name, "", SMALL)
    alone = training.model(args)
    alone.compile(training.optimizer(args), "mse")
    history = alone.fit(training.batches(args), epochs=4, shuffle=False, verbose=0).history
    assert np.ptp(history["loss"]) > 0.01, "choose a larger learning rate: nothing was learned"
    np.testing.assert_allclose(result["loss"], history["loss"], rtol=1e-5)
    together = keras.models.load_model(output / f"{name}.keras")
    for found, expected in zip(together.weights, alone.weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_batch_that_cannot_be_shared(training):
    args = training.options("mirrored", "", ["--batch-size", "9"])
    training.check_batch(args, 3)
    with pytest.raises(SystemExit, match="9 must be a multiple of the 2 devices"):
        training.check_batch(args, 2)


def test_the_shares_of_all_processes_are_the_batch(training):
    args = training.options("data_parallel", "", SMALL)
    x, y = training.batches(args)[1]
    shares = [training.batches(args, process, 2)[1] for process in range(2)]
    for whole, parts in zip((x, y), zip(*shares, strict=True), strict=True):
        assert [len(part) for part in parts] == [4, 4]
        np.testing.assert_array_equal(np.stack(parts, 1).reshape(whole.shape), whole)


# The first process dies, and the other would wait for ever.
HANGS = """
    import os, pathlib, sys, time

    folder, deaths = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    (folder / f"{os.getpid()}.pid").touch()
    while (started := len(list(folder.glob("*.pid")))) % 2:
        time.sleep(0.05)  # for the other one
    if started <= 2 * deaths:
        time.sleep(0 if os.environ["KERAS_DISTRIBUTION_PROCESS_ID"] == "0" else 3600)
        sys.exit(3)
"""


@pytest.mark.parametrize("deaths, ends", [(1, 0), (9, 1)])
def test_one_that_dies_starts_all_again(deaths, ends, tmp_path):
    script = tmp_path / "hangs.py"
    script.write_text(textwrap.dedent(HANGS))
    printed, code = launch("--restarts", "1", script, tmp_path, str(deaths))
    assert code == ends, printed
    assert "Process 0 ended with 3." in printed
    assert ("Gave up after 1 restarts." in printed) == (ends != 0)
    pids = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
