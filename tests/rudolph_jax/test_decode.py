"""The compiled sampler against a plain loop without a cache, and what must not change a sample.

Samples are compared exactly, between programs too: with the same random bits a token differs only
where two are as near as the programs' rounding (1e-6), which none of these seeds has.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import Compute, InputError, cpu
from clip_jax.cpu.transposed import transpose_kernels
from clip_jax.layers import unstack_layers
from rudolph_jax import PretrainedRudolph, Rudolph, incremental
from rudolph_jax.decode import (
    SamplerConfig,
    SamplerInputs,
    decode_step,
    generate,
    prefill,
    prompt_mask,
    sample_loop,
)
from rudolph_jax.generation import GenerationConfig, sample_batches
from rudolph_jax.layout import EOS, Layout
from rudolph_jax.masks import MASK_TYPES, layer_mask_types, mask
from rudolph_jax.sampling import SamplingParams, guided_sample, sample


@pytest.fixture(scope="module")
def params(tiny_config, tiny_params):
    return unstack_layers(jax.tree.map(np.asarray, tiny_params(tiny_config)))


def make_inputs(sampler, ids, start, seed=0, forced_tokens=None, allowed=None, stop=None):
    """Two prompts; with guidance a second stream that is all padding after its BOS."""
    prompts = ids[None, :2, : sampler.prompt_length]
    if sampler.guidance != "none":
        other = prompts.copy()
        other[..., 1:] = 0
        prompts = np.concatenate([prompts, other])
    N = sampler.target_slice.stop - sampler.target_slice.start
    if forced_tokens is None:
        forced_tokens = np.full((2, N), -1, np.int32)
        forced_tokens[0, N // 2] = 4
    return SamplerInputs(
        prompts=jnp.asarray(prompts),
        start=jnp.int32(start),
        stop=jnp.int32(stop or N),
        forced_tokens=jnp.asarray(forced_tokens),
        allowed_tokens=jnp.ones(1, bool) if allowed is None else jnp.asarray(allowed),
        keys=jax.random.split(jax.random.key(seed), 2 * sampler.samples),
        sampling=SamplingParams(temperature=1.3, top_k=9, top_p=0.95).to_arrays(),
        guidance_weight=jnp.float32(0.3),
    )


sampled = jax.jit(sample)
guided = jax.jit(guided_sample, static_argnames="on_logits")
token_key = jax.jit(jax.vmap(jax.random.fold_in, (0, None)))


@functools.partial(jax.jit, static_argnums=0)
def model(config, params, ids):
    return Rudolph(config, stacked=False).apply({"params": params}, ids)


def without_cache(sampler, params, inputs):
    """The whole sequence through the model for each token, with the same random bits."""
    config, layout = sampler.config, Layout(sampler.config)
    rows = len(inputs.keys)
    prompts = np.repeat(np.asarray(inputs.prompts), sampler.samples, axis=1)
    forced_tokens = np.repeat(np.asarray(inputs.forced_tokens), sampler.samples, axis=0)
    ids = np.zeros((*prompts.shape[:2], layout.sequence_length), np.int32)
    ids[:, :, : int(inputs.start)] = prompts[:, :, : int(inputs.start)]
    done = np.zeros(rows, bool)
    for place in range(int(inputs.start) - sampler.target_slice.start, int(inputs.stop)):
        position = sampler.target_slice.start + place
        logits = [
            np.where(
                inputs.allowed_tokens,
                whole[:, position - 1 + layout.num_prefix_tokens, sampler.logit_slice],
                np.float32(-np.inf),
            )
            for whole in (np.asarray(model(config, params, stream)) for stream in ids)
        ]
        keys = token_key(inputs.keys, place)
        if sampler.guidance == "none":
            token = sampled(keys, logits[0], inputs.sampling)
        else:
            token = guided(
                keys, *logits, inputs.guidance_weight, inputs.sampling,
                on_logits=sampler.guidance == "logits",
            )  # fmt: skip
        token = np.array(token)
        if sampler.segment != "image":
            token[token >= config.text_vocab_size] = EOS
        token = np.where(forced_tokens[:, place] >= 0, forced_tokens[:, place], token)
        if sampler.segment != "image":
            token, done = np.where(done, 0, token), done | (token == EOS)
        ids[:, :, position] = token
    return ids[0][:, sampler.target_slice]


CASES = [
    ("image", "none", 5),
    ("image", "probabilities", 5),
    ("image", "logits", 5),
    ("right", "none", 15),
    ("right", "none", 16),
    ("left", "none", 1),
    ("left", "none", 3),
]


@pytest.mark.parametrize(("segment", "guidance", "start"), CASES)
def test_equals_a_loop_without_cache_token_for_token(
    tiny_config, params, tiny_ids, segment, guidance, start
):
    sampler = SamplerConfig(tiny_config, Compute(), segment, 3, guidance)
    for seed in (0, 1):
        inputs = make_inputs(sampler, tiny_ids, start, seed)
        expected = without_cache(sampler, params, inputs)
        np.testing.assert_array_equal(generate(sampler, params, inputs), expected)


@pytest.mark.parametrize("segment", ["image", "right"])
def test_a_windowed_cache_changes_nothing(tiny_config, params, tiny_ids, segment):
    sampler = SamplerConfig(tiny_config, Compute(), segment, 3)
    whole = dataclasses.replace(sampler, windowed_cache=False)
    start = 5 if segment == "image" else 15
    inputs = make_inputs(sampler, tiny_ids, start)
    found = generate(sampler, params, inputs)
    np.testing.assert_array_equal(found, generate(whole, params, inputs))


def test_hidden_states_with_a_windowed_cache_are_those_of_the_whole_sequence(
    tiny_config, params, tiny_ids
):
    """Compares the sampler's hidden states of an image with a run without a cache, in float32."""
    sampler, layout = SamplerConfig(tiny_config, Compute(), "image", 1), Layout(tiny_config)
    inputs = make_inputs(sampler, tiny_ids, 5, forced_tokens=tiny_ids[:2, layout.image])
    ids = tiny_ids[:2, : layout.image.stop]
    expected, _ = incremental.forward_with_cache(tiny_config, Compute(), params, jnp.asarray(ids))
    prompt_cache, state = jax.jit(prefill, static_argnums=0)(sampler, params, inputs)
    step = jax.jit(decode_step, static_argnums=0)
    for place in range(layout.image_length):
        found, cache = step(sampler, params, inputs, prompt_cache, state)
        difference = np.abs(found - expected[:, layout.image.start + place]).max()
        assert difference <= 1e-5 * np.abs(expected).max(), place
        token = inputs.forced_tokens[:, min(place + 1, layout.image_length - 1)]
        state = state._replace(position=state.position + 1, token=token, cache=cache)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_loop_copies_no_cache(tiny_config, params, tiny_ids, dtype):
    """The compiled loop updates keys and values where they lie, and turns no cache into float32."""
    sampler = SamplerConfig(tiny_config, Compute(dtype=dtype), "image", 32)
    inputs = make_inputs(sampler, tiny_ids, 5)
    text = generate.lower(sampler, transpose_kernels(params), inputs).compile().as_text()
    body = text[text.index("while_body") :] if "while_body" in text else text[: text.index("ENTRY")]
    heads, size = tiny_config.heads, tiny_config.width // tiny_config.heads
    kept = {"float32": "f32", "bfloat16": "u16"}[dtype]
    for kind in set(layer_mask_types(tiny_config)):
        shape = f"{kept}[64,{heads},{sampler.window(kind).num_slots},{size}]"
        lines = [line for line in body.splitlines() if f"= {shape}" in line]
        assert lines and not [line for line in lines if " copy(" in line]
    writes = [line for line in body.splitlines() if " dynamic-update-slice(" in line]
    of_caches = [line for line in writes if f"{size}]" in line.partition(" = ")[2].split("{")[0]]
    assert of_caches and all(f" = {kept}[" in line for line in of_caches)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_transposed_kernels_sample_the_same_tokens(tiny_config, params, tiny_ids, dtype):
    sampler = SamplerConfig(tiny_config, Compute(dtype=dtype), "image", 3, guidance="logits")
    inputs = make_inputs(sampler, tiny_ids, 5)
    found = generate(sampler, transpose_kernels(params), inputs)
    np.testing.assert_array_equal(found, generate(sampler, params, inputs))


def test_caches_of_bits_hold_what_others_do(tiny_config, params, tiny_ids):
    caches = []
    sampler = SamplerConfig(tiny_config, Compute(dtype="bfloat16"), "image", 1)
    inputs = make_inputs(
        sampler, tiny_ids, 5, forced_tokens=tiny_ids[:2, Layout(tiny_config).image]
    )
    for use in (True, False):
        with cpu.forms(use):
            prompt_cache, state = jax.jit(prefill, static_argnums=0)(sampler, params, inputs)
            state = jax.jit(sample_loop, static_argnums=(0, 5))(
                sampler, params, inputs, prompt_cache, state, 4
            )
        caches.append(jax.tree.leaves(state.cache))
    for bits, plain in zip(*caches, strict=True):
        assert (bits.dtype, plain.dtype) == (jnp.uint16, jnp.bfloat16)
        found = jax.lax.bitcast_convert_type(bits, jnp.bfloat16).astype("float32")
        assert np.abs(plain.astype("float32")).max() > 0
        np.testing.assert_allclose(found, plain.astype("float32"), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("changes", [{"bos_prefix": True}, {"sandwich_norm": False}])
def test_equals_it_for_rudalle_and_plain_blocks(tiny_config, tiny_params, tiny_ids, changes):
    rudalle = {"right_text_length": 0, "mask_order": "rudalle", "conv_edges": "wrap"}
    config = dataclasses.replace(tiny_config, **rudalle, **changes)
    params = unstack_layers(jax.tree.map(np.asarray, tiny_params(config)))
    sampler = SamplerConfig(config, Compute(), "image", 2)
    inputs = make_inputs(sampler, tiny_ids, 5)
    np.testing.assert_array_equal(
        generate(sampler, params, inputs), without_cache(sampler, params, inputs)
    )


def test_nothing_compiles_again_for_the_same_shape(tiny_config, params, tiny_ids):
    """Other prompts, lengths, seeds, options, weights, forced and allowed tokens: one program."""
    sampler = SamplerConfig(tiny_config, Compute(), "left", 2)
    generate(sampler, params, make_inputs(sampler, tiny_ids, 1))
    compiled = []

    def count(name, *_, **__):
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    second = make_inputs(sampler, tiny_ids[::-1].copy(), 4, seed=5, stop=4)
    second = second._replace(
        sampling=SamplingParams(0.0, 3, 0.5).to_arrays(), guidance_weight=jnp.float32(-1.0)
    )
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        generate(sampler, params, second).block_until_ready()
        assert not compiled
        # The counter does count.
        generate(
            dataclasses.replace(sampler, samples=1), params, second._replace(keys=second.keys[:2])
        )
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


def test_a_prompts_keys_and_values_are_stored_once(tiny_config, params, tiny_ids):
    """The compiled program's temporary memory grows by what samples add, not by prompts."""
    config = dataclasses.replace(tiny_config, left_text_length=200)
    shapes = jax.eval_shape(
        Rudolph(config).init,
        jax.random.key(0),
        jnp.zeros((1, Layout(config).sequence_length), jnp.int32),
    )
    abstract = unstack_layers(shapes["params"])
    ids = np.zeros((2, Layout(config).sequence_length), np.int32)

    def memory(samples):
        sampler = SamplerConfig(config, Compute(), "image", samples)
        inputs = make_inputs(sampler, ids, 200)
        return (
            generate.lower(sampler, abstract, inputs).compile().memory_analysis().temp_size_in_bytes
        )

    prompt = config.layers * 2 * 200 * config.width * 4  # bytes of one prompt's keys and values
    assert (memory(48) - memory(16)) / (2 * 32) < prompt / 4


@pytest.fixture(scope="module")
def pretrained(tiny_config, params):
    return PretrainedRudolph(tiny_config, params)


def drawn(model, ids, batch_size, count=12, mesh=None, prompts=1, quiet=True):
    generation = GenerationConfig(
        SamplingParams(top_k=9), seed=7, batch_size=batch_size, quiet=quiet, mesh=mesh
    )
    start = model.config.left_text_length
    parts = sample_batches(model, generation, "image", ids[None, :prompts, :start], start, count)
    return np.concatenate(list(parts), axis=1)


def test_samples_do_not_depend_on_the_batch(pretrained, tiny_ids):
    model = pretrained
    whole = drawn(model, tiny_ids, 16)
    assert whole.shape == (1, 12, 9)
    np.testing.assert_array_equal(whole, drawn(model, tiny_ids, 4))
    np.testing.assert_array_equal(whole[:, :5], drawn(model, tiny_ids, 16, count=5))
    assert len({row.tobytes() for row in whole[0]}) > 8  # they differ among themselves
    two = drawn(model, tiny_ids, 16, prompts=2)
    np.testing.assert_array_equal(two[:1], whole)


@pytest.mark.parametrize(
    ("devices", "turned"),
    [
        (2, False),
        pytest.param(4, False, marks=pytest.mark.slow),
        pytest.param(8, False, marks=pytest.mark.slow),
        (8, True),
    ],
)
def test_samples_do_not_depend_on_the_devices(pretrained, tiny_ids, devices, turned):
    model = pretrained
    if turned:
        model = PretrainedRudolph(model.config, transpose_kernels(model.params))
    mesh = jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices])
    sharded = drawn(model, tiny_ids, 16, mesh=mesh)
    np.testing.assert_array_equal(sharded, drawn(model, tiny_ids, 16))


def test_only_allowed_tokens_are_written(tiny_config, params, tiny_ids):
    sampler = SamplerConfig(tiny_config, Compute(), "left", 4)
    allowed = np.zeros(Layout(tiny_config).num_text_ids, bool)
    allowed[[5, 6]] = True
    forced_tokens = np.full((2, 5), -1, np.int32)
    found = generate(
        sampler,
        params,
        make_inputs(sampler, tiny_ids, 2, forced_tokens=forced_tokens, allowed=allowed),
    )
    assert set(np.asarray(found)[:, 2:].ravel()) == {5, 6}


def test_text_ends_with_eos_then_padding_and_at_the_stop(tiny_config, params, tiny_ids):
    sampler = SamplerConfig(tiny_config, Compute(), "left", 64)
    forced_tokens = np.full((2, 5), -1, np.int32)
    found = np.asarray(
        generate(sampler, params, make_inputs(sampler, tiny_ids, 1, forced_tokens=forced_tokens))
    )
    ended = [row.tolist().index(EOS) for row in found if EOS in row[1:-1]]
    assert ended and all(
        not row[row.tolist().index(EOS) + 1 :].any() for row in found if EOS in row[1:-1]
    )
    inputs = make_inputs(sampler, tiny_ids, 1, forced_tokens=forced_tokens, stop=3)
    stopped = np.asarray(generate(sampler, params, inputs))
    np.testing.assert_array_equal(stopped[:, :3], found[:, :3])
    assert not stopped[:, 3:].any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"segment": "middle"}, "expected left, image or right"),
        ({"guidance": "strong"}, "expected none, probabilities or logits"),
        ({"samples": 0}, "samples is 0"),
    ],
)
def test_wrong_sampler_configs(tiny_config, wrong, message):
    sampler = {
        "config": tiny_config,
        "compute": Compute(),
        "segment": "image",
        "samples": 1,
        **wrong,
    }
    with pytest.raises(InputError, match=message):
        SamplerConfig(**sampler)


@pytest.mark.parametrize("segment", ["image", "right"])
def test_accelerators_sample_the_same_tokens(tiny_config, params, tiny_ids, segment):
    """Without the forms for CPUs: the cache is updated in another way."""
    sampler = SamplerConfig(tiny_config, Compute(), segment, 3)
    inputs = make_inputs(sampler, tiny_ids, 5 if segment == "image" else 15)
    expected = generate(sampler, params, inputs)
    with cpu.forms(False):
        np.testing.assert_array_equal(generate(sampler, params, inputs), expected)


@pytest.mark.parametrize(
    ("segment", "bos_prefix"),
    [("left", False), ("image", False), ("image", True), ("right", False)],
)
@pytest.mark.parametrize("mask_type", MASK_TYPES)
def test_the_mask_of_a_prompt_is_the_part_of_the_mask(tiny_config, segment, mask_type, bos_prefix):
    config = dataclasses.replace(tiny_config, bos_prefix=bos_prefix)
    sampler = SamplerConfig(config, Compute(), segment, 1)
    prefix, target = Layout(config).num_prefix_tokens, sampler.target_slice
    M, whole = sampler.prompt_length + prefix, mask(config, mask_type)
    for first in (0, 1):  # positions that the prompt holds
        start = target.start + first
        for position in range(first, target.stop - target.start - prefix):
            found = prompt_mask(sampler, mask_type, jnp.int32(start), jnp.int32(position), M)
            expected = whole[target.start + prefix + position, :M].copy()
            expected[start + prefix :] = False
            np.testing.assert_array_equal(found, expected)


def test_a_step_reads_no_mask_of_the_whole_sequence(tiny_config, params, tiny_ids):
    """On accelerators such a constant would be copied in each step."""
    sampler = SamplerConfig(tiny_config, Compute(), "image", 2)
    inputs = make_inputs(sampler, tiny_ids, 5)
    T = Layout(tiny_config).sequence_length
    with cpu.forms(False):
        prompt_cache, state = jax.eval_shape(
            jax.jit(prefill, static_argnums=0), sampler, params, inputs
        )
        arguments = (sampler, params, inputs, prompt_cache, state, 4)
        text = jax.jit(sample_loop, static_argnums=(0, 5)).lower(*arguments).as_text()
    assert "xi1>" in text and f"<{T}x{T}xi1>" not in text
    N = sampler.target_slice.stop - sampler.target_slice.start
    assert f"<{N}x5xi1>" not in text  # nor of the prompt, all of which an image attends to
