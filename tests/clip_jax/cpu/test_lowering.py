"""Programs for accelerators hold none of the forms for CPUs, also when they are traced on one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import Clip, Compute, cpu
from clip_jax.layers import unstack_layers
from rudolph_jax.config import PRESETS
from rudolph_jax.decode import SamplerConfig, SamplerInputs, generate
from rudolph_jax.model import Rudolph
from rudolph_jax.model import abstract_params as abstract_rudolph
from rudolph_jax.sampling import SamplingParams

CONFIG = PRESETS["tiny"]
# Of bfloat16 caches stored as bits, of barriers between their reads and writes, of forced layouts.
FORMS = "ui16|optimization_barrier|LayoutConstraint"


def encode_program(config, compute, platform):
    model = Clip(config, compute)
    ids = jax.ShapeDtypeStruct((2, config.text.context_length), jnp.int32)
    size = config.vision.image_size
    pixels = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), ids, pixels)["params"]

    def loss(params, ids, pixels):
        image, text, scale = model.apply({"params": params}, ids, pixels)
        return (image * text).sum() * scale

    return lower(jax.grad(loss), platform, params, ids, pixels)


def sample_program(compute, platform):
    sampler = SamplerConfig(CONFIG, compute, "image", 2, "logits")
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))
    int32 = jnp.int32(0)
    inputs = SamplerInputs(
        np.zeros((2, 2, sampler.prompt_length), np.int32), int32, int32,
        np.zeros((2, 16), np.int32),
        np.ones(1, bool), keys, SamplingParams().to_arrays(), jnp.float32(1),
    )  # fmt: skip
    params = unstack_layers(abstract_rudolph(CONFIG))
    return lower(lambda params, inputs: generate(sampler, params, inputs), platform, params, inputs)


def score_program(compute, platform):
    model, ids = Rudolph(CONFIG, compute), jax.ShapeDtypeStruct((2, 48), jnp.int32)
    return lower(
        lambda params, ids: model.apply({"params": params}, ids),
        platform, abstract_rudolph(CONFIG), ids,
    )  # fmt: skip


def lower(function, platform, *args):
    return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_accelerators_get_none_of_the_forms(small_config, dtype, platform):
    compute = Compute(dtype=dtype)
    with cpu.forms(False):
        programs = (
            encode_program(small_config, compute, platform),
            sample_program(compute, platform),
            score_program(compute, platform),
        )
    for program in programs:
        assert not re.search(FORMS, program)


def test_the_patterns_find_the_forms(small_config):
    """Otherwise the test above could not fail."""
    compute = Compute(dtype="bfloat16")
    sampled = sample_program(compute, "cpu")
    assert "ui16" in sampled and "optimization_barrier" in sampled
    assert "LayoutConstraint" in encode_program(small_config, compute, "cpu")


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_long_attention_is_one_call(small_config, platform):
    """577 queries are six chunks on a CPU; elsewhere scores are one product."""
    shape = jax.ShapeDtypeStruct((1, 577, 2, 8), jnp.bfloat16)

    def products(use):
        from clip_jax.attention import attention

        with cpu.forms(use):
            program = lower(lambda x: attention(x, x, x, False), platform, shape)
        return program.count("stablehlo.dot_general")

    assert (products(False), products(True)) == (2, 12)
