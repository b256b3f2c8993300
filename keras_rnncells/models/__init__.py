"""Deep stacks of recurrent layers, the language model made of them, and trained models."""

from keras_rnncells.models.embedding import TiedEmbedding as TiedEmbedding
from keras_rnncells.models.language import (
    ResetStates as ResetStates,
    language_model as language_model,
    reset_states as reset_states,
)
from keras_rnncells.models.normalization import StepBatchNormalization as StepBatchNormalization
from keras_rnncells.models.pretrained import load as load
from keras_rnncells.models.sizes import (
    count_parameters as count_parameters,
    units_for as units_for,
)
from keras_rnncells.models.stacks import dense as dense, plain as plain, residual as residual
from keras_rnncells.models.statistics import PopulationStatistics as PopulationStatistics
