"""The adding problem on several machines: `tf.distribute.MultiWorkerMirroredStrategy` with `fit`.

    python examples/distributed/launch.py --processes 2 examples/distributed/multi_worker.py

Each process has its place from `TF_CONFIG`, takes the GPUs that it sees or else the CPU, and runs
the same script. Alone, without `TF_CONFIG`, it is one worker.
"""

import keras
import tensorflow as tf
import training


class MultiWorkerModel(keras.Model):
    """A model whose `fit` works under MultiWorkerMirroredStrategy.

    There Keras averages the logs of a step over their first axis
    (https://github.com/keras-team/keras/issues/20585), and a number has none: it gets one here.
    """

    def train_step(self, *args, **kwargs):
        return self._with_axis(super().train_step(*args, **kwargs))

    def test_step(self, *args, **kwargs):
        return self._with_axis(super().test_step(*args, **kwargs))

    @staticmethod
    def _with_axis(logs):
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}


def main(argv: list[str] | None = None) -> None:
    args = training.options("multi_worker", __doc__, argv)
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before TensorFlow computes anything
    cluster = strategy.cluster_resolver
    training.check_batch(args, strategy.num_replicas_in_sync)
    chief = not cluster.cluster_spec() or cluster.task_id == 0

    with strategy.scope():
        network = training.model(args)
    # Outside of the scope: a model of the scope is built from a batch once more, and fails at it.
    model = MultiWorkerModel(network.inputs, network.outputs)
    train = training.batches(args)
    with strategy.scope():
        model.compile(training.optimizer(args), "mse")
        checkpoints = training.resume(args, model, train, chief)
        # Every process makes all the data and takes its share of each batch.
        sharing = tf.data.Options()
        sharing.experimental_distribute.auto_shard_policy = (
            tf.data.experimental.AutoShardPolicy.DATA
        )
        if checkpoints.ended is None:
            model.fit(
                train.as_tf_dataset(epochs=None).with_options(sharing),
                steps_per_epoch=args.steps,
                epochs=args.epochs,
                initial_epoch=checkpoints.epoch,
                callbacks=[checkpoints],
                shuffle=False,  # the data are in their order
                verbose=2 if chief else 0,
            )
    # The network, which is the same weights: nobody who loads it needs the wrapper.
    training.finish(args, network, checkpoints, strategy.num_replicas_in_sync)


if __name__ == "__main__":
    main()
