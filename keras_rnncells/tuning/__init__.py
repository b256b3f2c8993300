"""Search spaces for KerasTuner."""

try:
    import keras_tuner as _keras_tuner  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "keras_tuner":
        raise
    raise ImportError(
        "keras_rnncells.tuning needs keras_tuner, which is not installed: run "
        "`pip install keras_rnncells[tune]`."
    ) from None

from keras_rnncells.tuning.hypermodel import RNNHyperModel as RNNHyperModel
