"""The units with which a network has a given number of weights."""

import functools

import pytest

from keras_rnncells import models

plain = functools.partial(models.plain, (9, 3), 2, layers=2)
MAKERS = {
    "IndRNN": plain,
    "LSTM": functools.partial(plain, cell="LSTM", normalization=None),
    "linear in the units": functools.partial(models.plain, (9, 3), 2, layers=1),
    "dense": lambda units: models.dense((9, 3), 2, growth=units, blocks=(2,)),
    # Spares a layer, where the stack is as wide as the embedding.
    "tied": functools.partial(models.language_model, 11, embedding=6, layers=1, stateful=False),
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("parameters", [700, 3_000])
def test_one_more_is_too_many(maker, parameters):
    def build(units):
        return MAKERS[maker](units=units)

    units = models.units_for(build, parameters)
    if units > 1:
        assert models.count_parameters(build(units)) <= parameters
    assert models.count_parameters(build(units + 1)) > parameters


def test_too_few_for_any():
    assert models.units_for(lambda n: plain(units=n), 5) == 1


def test_wrong_number():
    with pytest.raises(ValueError, match="parameters"):
        models.units_for(plain, 0)
