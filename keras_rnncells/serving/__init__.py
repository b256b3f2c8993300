"""Trained models as they are used: SavedModels for TensorFlow Serving, and streams in Python."""

from keras_rnncells.serving.client import Client
from keras_rnncells.serving.export import export
from keras_rnncells.serving.rules import register_per_step
from keras_rnncells.serving.session import Session, StreamingModel
from keras_rnncells.serving.transports import ServerError

__all__ = ["Client", "ServerError", "Session", "StreamingModel", "export", "register_per_step"]
