"""By which tensor a checkpoint's kind is known, and the mask that OpenAI's text tower has."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from clip_jax.errors import InputError
from converters.clip_tables import causal_mask, parameter_shapes, require_kind
from converters.signatures import SIGNATURES
from converters.weights import Weights


def weights_of(*names):
    return Weights(Path("x.pt"), {name: np.zeros(1) for name in names}, {}, (Path("x.pt"),))


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_checkpoint_is_of_the_kind_whose_tensor_it_has(signature):
    weights = weights_of("other", signature)
    require_kind(weights, "this", signature)
    for other in set(SIGNATURES) - {signature}:
        with pytest.raises(InputError) as caught:
            require_kind(weights, "this", other)
        assert str(caught.value) == (
            f"x.pt: not this: has no tensor {other!r}; it looks like {SIGNATURES[signature]}"
        )


def test_a_checkpoint_of_no_kind():
    for signature in SIGNATURES:
        with pytest.raises(InputError, match="it looks like no known model"):
            require_kind(weights_of("other"), "this", signature)


def test_with_several_tensors_the_first_of_the_table_decides():
    """The more particular ones come first: an OpenAI ResNet has the tensor of every CLIP."""
    first, *rest = SIGNATURES
    for other in rest:
        weights = weights_of(other, first)
        require_kind(weights, "this", first)
        with pytest.raises(InputError) as caught:
            require_kind(weights, "this", other)
        assert str(caught.value) == f"x.pt: not this: it looks like {SIGNATURES[first]}"


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_causal_mask_is_minus_infinity_above_the_diagonal(length):
    mask = causal_mask(length)
    assert mask.dtype == np.float32
    later = np.arange(length)[None] > np.arange(length)[:, None]
    np.testing.assert_array_equal(mask, np.where(later, -np.inf, 0))


def test_shapes_of_a_config_are_computed_once(small_config):
    shapes = parameter_shapes(small_config)
    assert shapes["logit_scale"] == () and "text/layers/1/mlp/in_bias" in shapes
    assert parameter_shapes(dataclasses.replace(small_config)) is shapes
