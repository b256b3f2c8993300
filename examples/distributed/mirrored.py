"""The adding problem on all GPUs of one machine: `tf.distribute.MirroredStrategy`.

    python examples/distributed/mirrored.py
    python examples/distributed/mirrored.py --cpu-devices 2

Each device has a copy of the weights and a share of each batch; their gradients are added up, so
that a step is that of one device with the whole batch.
"""

import tensorflow as tf
import training


def strategy(cpu_devices: int | None) -> tf.distribute.Strategy:
    """All GPUs, or else the CPU; with `cpu_devices`, the CPU as so many devices."""
    if not cpu_devices:
        return tf.distribute.MirroredStrategy()
    parts = [tf.config.LogicalDeviceConfiguration()] * cpu_devices
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(cpu_devices)])


def main(argv: list[str] | None = None) -> None:
    help_text = "parts of the CPU to take for devices, to try it without GPUs"
    args = training.options("mirrored", __doc__, argv, cpu_devices=help_text)
    mirrored = strategy(args.cpu_devices)
    training.check_batch(args, mirrored.num_replicas_in_sync)

    with mirrored.scope():
        model = training.model(args)
        model.compile(training.optimizer(args), "mse")
    train = training.batches(args)
    checkpoints = training.resume(args, model, train)
    if checkpoints.ended is None:
        model.fit(
            train,
            epochs=args.epochs,
            initial_epoch=checkpoints.epoch,
            callbacks=[checkpoints],
            shuffle=False,  # by numbers that a run which goes on would not have
            verbose=2,
        )
    training.finish(args, model, checkpoints, mirrored.num_replicas_in_sync)


if __name__ == "__main__":
    main()
