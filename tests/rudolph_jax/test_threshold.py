"""Thresholds by digits, the form for accelerators, equal those by single bits, the CPU's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import cpu
from rudolph_jax.sampling import SamplingParams, filter_logits
from rudolph_jax.threshold import digit_bits, largest_threshold, search_by_digits

HIGHEST = 2**32 - 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_digits_find_the_kth_largest(bits):
    """By sorting, with ties and the extremes of uint32."""
    order = np.random.default_rng(0).integers(0, HIGHEST, (5, 40), np.uint32, endpoint=True)
    order[1] = HIGHEST
    order[2, :20], order[3, 7:30], order[4] = 0, order[3, 6], order[4] >> 28
    for k in (1, 2, 9, 40):
        found = search_by_digits(order, lambda kept, k=k: kept.sum(axis=-1) >= k, bits)
        np.testing.assert_array_equal(found, np.sort(order)[:, -k])
    nothing = search_by_digits(order, lambda kept: kept.sum(axis=-1) > 40, bits)
    assert not nothing.any()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_digits_of_rows_in_several_axes(bits):
    """As of rows in one; the threshold of a row is its largest value here."""
    order = jax.random.bits(jax.random.key(1), (2, 3, 4, 5), jnp.uint32)
    found = search_by_digits(order, lambda kept: kept.any(axis=-1), bits)
    np.testing.assert_array_equal(found, order.max(axis=-1))


@pytest.mark.parametrize("form", [True, False])
def test_a_search_that_is_off_finds_nothing(form):
    order = jnp.arange(12, dtype=jnp.uint32).reshape(2, 6) + 1
    with cpu.forms(form):
        for needed, expected in ((True, [4, 10]), (False, [0, 0])):
            found = largest_threshold(
                order, lambda: lambda kept: kept.sum(axis=-1) >= 3, jnp.bool_(needed)
            )
            assert found.tolist() == expected


@pytest.mark.parametrize(
    ("platform", "bits"), [("gpu", [8, 8, 4, 4, 2, 2]), ("tpu", [4, 2, 2, 2, 2, 2])]
)
def test_the_more_rows_of_codes_the_fewer_bits_a_pass(platform, bits, monkeypatch):
    monkeypatch.setattr("rudolph_jax.threshold.traced_platform", lambda: platform)
    assert [digit_bits(rows * 8192) for rows in (1, 2, 3, 32, 33, 256)] == bits


# Of eight, four and two bits a pass.
@pytest.mark.parametrize("rows", [1, pytest.param(20, marks=pytest.mark.slow), 40])
@pytest.mark.parametrize(
    "options",
    [{}, {"top_k": 768, "top_p": 0.99}, {"top_k": 64, "top_p": 0.8}, {"top_k": 5}, {"top_p": 0.3},
     {"top_p": 0.0}, {"top_k": 9000, "top_p": 0.5}],
)  # fmt: skip
def test_accelerators_keep_the_same_tokens(rows, options):
    logits = np.random.default_rng(rows).normal(0, 3, (rows, 8192)).astype(np.float32)
    logits = np.round(logits, 2)  # many ties
    logits[:, 100:200] = -np.inf
    settings = SamplingParams(**options).to_arrays()
    kept = []
    for form in (True, False):
        with cpu.forms(form):
            kept.append(np.isfinite(jax.jit(filter_logits)(logits, settings)))
    np.testing.assert_array_equal(*kept)
    assert 0 < kept[0].sum() <= np.isfinite(logits).sum()


def test_accelerators_wait_for_no_condition():
    """A condition, or a loop within the sampler's, waits for the host on a GPU."""
    logits, settings = jnp.zeros((2, 100)), SamplingParams().to_arrays()
    with cpu.forms(False):
        text = str(jax.make_jaxpr(filter_logits)(logits, settings))
    assert " cond[" not in text and "while[" not in text and "scan[" not in text
    with cpu.forms(True):
        assert " cond[" in str(jax.make_jaxpr(filter_logits)(logits, settings))
