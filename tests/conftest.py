"""What every test stands on: the table of cells, the backend, and seeds."""

import os
import tempfile

# Gradient checks need float64, which JAX rounds away unless told.
os.environ.setdefault("JAX_ENABLE_X64", "1")
# Much of the time of the tests is compiling; small programs need no optimizing.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault(  # the same for TensorFlow
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Each test starts from the same random numbers and leaves no policy behind."""
    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


if keras.backend.backend() == "jax":
    import jax

    @pytest.fixture(autouse=True, scope="session")
    def _compiled_on_disk():
        """In a folder for each process: JAX does not write it in one go."""
        with tempfile.TemporaryDirectory() as folder:
            jax.config.update("jax_compilation_cache_dir", folder)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
            jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
            yield

    @pytest.fixture(autouse=True, scope="module")
    def _small_memory():
        """All that was compiled, some gigabytes by the end, would stay in memory."""
        yield
        jax.clear_caches()
