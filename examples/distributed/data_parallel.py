"""The adding problem on JAX: `keras.distribution.DataParallel`, on one machine or several.

    KERAS_BACKEND=jax python examples/distributed/data_parallel.py
    KERAS_BACKEND=jax python examples/distributed/data_parallel.py --cpu-devices 2
    KERAS_BACKEND=jax python examples/distributed/launch.py --processes 2 \\
        examples/distributed/data_parallel.py

Each process has its place from `KERAS_DISTRIBUTION_...`, and takes all devices that it sees. Alone,
without these variables, it is the only one.
"""

import os

import jax
import keras
import training


def main(argv: list[str] | None = None) -> None:
    help_text = "devices that the CPU of each process is taken for, to try it without GPUs"
    args = training.options("data_parallel", __doc__, argv, cpu_devices=help_text)
    if args.cpu_devices:
        jax.config.update("jax_num_cpu_devices", args.cpu_devices)
    keras.utils.set_random_seed(args.seed)
    if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize()
    process, processes = jax.process_index(), jax.process_count()
    training.check_batch(args, jax.device_count())

    # Each process makes its own share of the data.
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    model = training.model(args)
    model.compile(training.optimizer(args), "mse")
    train = training.batches(args, process, processes)
    checkpoints = training.resume(args, model, train, chief=process == 0)
    if checkpoints.ended is None:
        model.fit(
            train,
            epochs=args.epochs,
            initial_epoch=checkpoints.epoch,
            callbacks=[checkpoints],
            shuffle=False,  # by numbers that a run which goes on would not have
            verbose=2 if process == 0 else 0,
        )
    training.finish(args, model, checkpoints, jax.device_count())


if __name__ == "__main__":
    main()
