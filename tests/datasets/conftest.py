import pytest

from tests.tools import write_mnist


@pytest.fixture(scope="package")
def mnist(tmp_path_factory):
    """A folder of TFDS with a small `mnist` of noise, and its arrays."""
    folder = tmp_path_factory.mktemp("tfds")
    return folder, write_mnist(folder)
