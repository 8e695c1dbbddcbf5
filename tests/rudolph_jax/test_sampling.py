import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clip_jax import InputError
from rudolph_jax.sampling import (
    IMAGE_SAMPLING,
    TEXT_SAMPLING,
    SamplingParams,
    apply_temperature,
    filter_logits,
    guided_sample,
    sample,
)

filtered = jax.jit(filter_logits)
sampled = jax.jit(sample)
guided = jax.jit(guided_sample, static_argnames="on_logits")


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def test_top_k_and_top_p_keep_what_the_original_keeps(goldens):
    recorded = np.load(goldens / "sampling" / "outputs.npz")
    settings = [name for name in recorded if name.startswith("kept_")]
    assert len(settings) == 6
    for name in settings:
        k, p = name.removeprefix("kept_k").split("_p")
        options = SamplingParams(top_k=int(k), top_p=float(p)).to_arrays()
        kept = np.isfinite(filtered(recorded["logits"], options))
        np.testing.assert_array_equal(kept, recorded[name])


def kept_by_sorting(logits, top_k, top_p):
    """The same by the definition, in float64."""
    logits = logits.astype(np.float64)
    floor = -np.inf
    if 0 < top_k < len(logits):
        floor = np.sort(logits)[-top_k]
    left = np.where(logits >= floor, logits, -np.inf)
    p = np.exp(left - left.max())
    p /= p.sum()
    before = np.array([p[left > value].sum() for value in left])
    return (logits >= floor) & ((before <= top_p) if top_p < 1 else True)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, 13, elements=st.floats(-20, 20, width=16)),
    st.integers(0, 15),
    st.sampled_from([0.0, 0.137, 0.5, 0.9, 1.0]),
)
def test_filter_equals_its_definition(logits, top_k, top_p):
    expected = kept_by_sorting(logits, top_k, top_p)
    options = SamplingParams(top_k=top_k, top_p=top_p).to_arrays()
    found = np.isfinite(filtered(logits[None], options))[0]
    # Rounding may decide a token that lies on the edge to a millionth.
    shifted = (
        [kept_by_sorting(logits, top_k, top_p + d) for d in (-1e-5, 1e-5)] if top_p < 1 else []
    )
    assert any((found == e).all() for e in [expected, *shifted])
    assert found.any()


@pytest.mark.parametrize(
    "options", [SamplingParams(top_k=1), SamplingParams(top_p=0.5), SamplingParams(top_p=0.0)]
)
def test_zeros_of_both_signs_tie(options):
    logits = np.array([[-1.0, 0.0, -0.0, -0.0]], np.float32)
    kept = np.isfinite(filtered(logits, options.to_arrays()))
    np.testing.assert_array_equal(kept, [[False, True, True, True]])


def test_each_filter_can_be_off():
    """In the original top_k=0 means the default, so that it cannot be turned off."""
    logits = np.linspace(-3, 3, 20, dtype=np.float32)[None]
    everything = filtered(logits, SamplingParams(top_k=0, top_p=1.0).to_arrays())
    np.testing.assert_array_equal(everything, logits)
    assert SamplingParams(top_k=64).with_overrides(top_k=0).top_k == 0
    assert SamplingParams(temperature=0.9).with_overrides(temperature=None).temperature == 0.9


def test_the_crossing_token_is_kept():
    logits = np.log(np.float32([[0.5, 0.3, 0.15, 0.05]]))
    for top_p, kept in ((0.4, 1), (0.6, 2), (0.85, 3), (0.0, 1)):
        found = np.isfinite(filtered(logits, SamplingParams(top_p=top_p).to_arrays()))
        assert found.sum() == kept, top_p


def test_draws_have_the_probabilities_that_temperature_asks_for():
    logits = np.tile(np.log(np.float32([0.6, 0.3, 0.1])), (4000, 1))
    options = SamplingParams(temperature=0.5).to_arrays()
    found = np.bincount(np.asarray(sampled(keys(4000), logits, options)), minlength=3) / 4000
    expected = np.array([0.36, 0.09, 0.01]) / 0.46
    assert np.abs(found - expected).max() < 0.03


def test_temperature_zero_is_greedy():
    logits = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32)
    found = sampled(keys(50), logits, SamplingParams(temperature=0.0).to_arrays())
    np.testing.assert_array_equal(found, logits.argmax(axis=1))


def test_a_row_depends_on_its_own_key_alone():
    logits = np.random.default_rng(0).normal(size=(8, 40)).astype(np.float32)
    options = SamplingParams().to_arrays()
    together = np.asarray(sampled(keys(8), logits, options))
    alone = np.asarray(sampled(keys(8)[3:4], logits[3:4], options))
    assert together[3] == alone[0]


P = np.float32([0.5, 0.3, 0.2])
Q = np.float32([0.1, 0.1, 0.8])


def frequencies(weight, on_logits, **options):
    n = 6000
    found = guided(
        keys(n), jnp.tile(jnp.log(P), (n, 1)), jnp.tile(jnp.log(Q), (n, 1)), weight,
        SamplingParams(**options).to_arrays(), on_logits=on_logits,
    )  # fmt: skip
    return np.bincount(np.asarray(found), minlength=3) / n


def test_guidance_mixes_probabilities():
    assert np.abs(frequencies(0.2, False) - (0.8 * P + 0.2 * Q)).max() < 0.03


def test_guidance_mixes_logits():
    expected = np.exp(0.8 * np.log(P) + 0.2 * np.log(Q))
    assert np.abs(frequencies(0.2, True) - expected / expected.sum()).max() < 0.03


@pytest.mark.parametrize("on_logits", [False, True])
def test_guidance_away_from_a_prediction(on_logits):
    """A negative weight fails in the original; what becomes negative is impossible."""
    expected = np.maximum(2 * P - Q, 0) if not on_logits else np.exp(2 * np.log(P) - np.log(Q))
    expected /= expected.sum()
    assert np.abs(frequencies(-1.0, on_logits) - expected).max() < 0.03


@pytest.mark.parametrize("on_logits", [False, True])
def test_guidance_where_the_predictions_share_no_token(on_logits):
    """Filters to one token each, a different one; the original's logits are then -inf, and NaN.

    Ours are those of a mixture without a filter.
    """
    expected = np.exp(0.8 * np.log(P) + 0.2 * np.log(Q)) if on_logits else np.array([0.8, 0, 0.2])
    found = frequencies(0.2, on_logits, top_k=1)
    assert np.abs(found - expected / expected.sum()).max() < 0.03


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (2, 9), elements=st.floats(-8, 8, width=16), unique=True),
    st.integers(1, 9),
    st.floats(-1.0, 1.0, width=16),
)
def test_guided_by_logits_only_tokens_that_both_filters_keep_are_drawn(logits, top_k, weight):
    """Away from a prediction the other's filter alone counts."""
    options = SamplingParams(top_k=top_k).to_arrays()
    conditional, unconditional = np.isfinite(filtered(logits, options))
    kept = conditional & (unconditional | (weight <= 0))
    rows = jnp.tile(logits[:, None], (1, 64, 1))
    found = np.asarray(guided(keys(64), rows[0], rows[1], weight, options, on_logits=True))
    assert kept[found].all() or not kept.any()


def test_temperature_zero_leaves_logits_alone():
    logits = jnp.float32([[1.0, 2.0]])
    greedy = SamplingParams(temperature=0.0).to_arrays()
    np.testing.assert_array_equal(apply_temperature(logits, greedy), logits)


def test_defaults_are_those_of_the_originals_api():
    """Of `rudolph.api.ruDolphApi`: temperature, top_k, top_p."""
    text, image = (dataclasses.astuple(x) for x in (TEXT_SAMPLING, IMAGE_SAMPLING))
    assert text == (0.9, 64, 0.8) and image == (1.0, 768, 0.99)


def test_the_greatest_top_k_is_still_itself_as_an_array():
    assert SamplingParams(top_k=2**31 - 1).to_arrays().top_k == 2**31 - 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; expected 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1; expected 0"),
        ({"top_k": 2.5}, "top_k is 2.5"),
        ({"top_k": 2**31}, "top_k is 2147483648"),
        ({"top_p": 1.5}, "top_p is 1.5; expected 0 to 1"),
    ],
)
def test_wrong_options(wrong, message):
    with pytest.raises(InputError, match=message):
        SamplingParams(**wrong)
