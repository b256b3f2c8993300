"""What pyproject.toml cannot say: which trained models there are to be installed."""

from pathlib import Path

from setuptools import setup


def trained_models():
    """The models and their cards, to where `keras_rnncells.models.load` looks for them."""
    for folder in sorted(Path("saved_models").glob("*")):
        files = sorted(f.as_posix() for kind in ("*.keras", "*.md") for f in folder.glob(kind))
        if files:
            yield f"share/keras_rnncells/{folder.as_posix()}", files


setup(data_files=list(trained_models()))
