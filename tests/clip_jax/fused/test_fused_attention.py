"""Fused attention against the plain form: every mask type, odd lengths, both head sizes, a mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clip_jax import Compute, InputError, cpu
from clip_jax.attention import self_attention
from clip_jax.fused import force_kernel, fused_attention, fused_self_attention, shard_over
from clip_jax.fused.tpu import choose_block, kept_blocks, padded_mask
from clip_jax.fused.tpu_single_block import fits_single_block
from clip_jax.model import remat_policy
from rudolph_jax.config import PRESETS
from rudolph_jax.masks import MASK_TYPES, mask

SMALL = dataclasses.replace(
    PRESETS["350M"], left_text_length=40, image_tokens_per_side=12, right_text_length=25
)  # 209 tokens: no multiple of 128, and odd
MASKS = {name: mask(SMALL, name) for name in MASK_TYPES}


def plain(q, k, v, allowed):
    scores = jnp.einsum("BHTK,BHMK->BHTM", q, k, preferred_element_type=jnp.float32)
    scores = scores if allowed is None else jnp.where(allowed, scores, -1e4)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("BHTM,BHMK->BHTK", weights, v)


def inputs(T, K, dtype=jnp.float32, B=2, H=2):
    q, k, v = jax.random.normal(jax.random.key(T), (3, B, H, T, K))
    return (q * K**-0.5).astype(dtype), k.astype(dtype), v.astype(dtype)


def value_and_gradients(attend, arrays, allowed):
    def loss(*arrays):
        return jnp.sin(attend(*arrays, allowed).astype(jnp.float32)).sum()

    out = attend(*arrays, allowed)
    return out, *jax.grad(loss, tuple(range(len(arrays))))(*arrays)


# Each mask with one size of heads, each size with one mask; the other pairs are slow.
KINDS = [*MASK_TYPES, "full"]


def pairs(sizes):
    return [
        pytest.param(
            name, size, marks=[] if name == "row" or size == sizes[0] else pytest.mark.slow
        )
        for name in KINDS
        for size in sizes
    ]


@pytest.mark.parametrize(("name", "K"), pairs([64, 128]))
def test_every_mask_in_float32(name, K):
    allowed = MASKS.get(name)
    arrays = inputs(len(MASKS["row"]), K)
    with force_kernel("splash_interpreted"):
        found = value_and_gradients(fused_attention, arrays, allowed)
    for a, b in zip(found, value_and_gradients(plain, arrays, allowed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("T", [577, 832])
def test_published_lengths_in_bfloat16(T):
    arrays = inputs(T, 64, jnp.bfloat16, B=1, H=1)
    allowed = np.tri(T, dtype=bool) if T == 832 else None
    exact = [x.astype(jnp.float32) for x in arrays]
    with force_kernel("splash_interpreted"):
        found = value_and_gradients(fused_attention, arrays, allowed)
    for a, b in zip(found, value_and_gradients(plain, exact, allowed), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b)
        assert np.abs(a - b).max() < 1e-2 * np.abs(b).max()
        assert np.abs(a - b).mean() < 2e-3 * np.abs(b).max()


def plain_self(qkv, allowed):
    q, k, v = jnp.einsum("BTcHK->cBHTK", qkv)
    return jnp.einsum("BHTK->BTHK", plain(q * q.shape[-1] ** -0.5, k, v, allowed))


@pytest.mark.parametrize(("name", "heads"), pairs([(4, 64), (2, 128), (8, 80)]))
def test_a_single_block_in_float32(name, heads):
    H, K = heads
    allowed = MASKS.get(name)
    T = len(MASKS["row"])
    qkv = jax.random.normal(jax.random.key(K), (2, T, 3, H, K))
    with force_kernel("single_block_interpreted"):
        found = value_and_gradients(fused_self_attention, [qkv], allowed)
    for a, b in zip(found, value_and_gradients(plain_self, [qkv], allowed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("T", [50, 77, 577])
def test_a_single_block_of_published_lengths_in_bfloat16(T):
    qkv = jax.random.normal(jax.random.key(T), (1, T, 3, 2, 64)).astype(jnp.bfloat16)
    allowed = np.tri(T, dtype=bool) if T == 77 else None
    with force_kernel("single_block_interpreted"):
        found = value_and_gradients(fused_self_attention, [qkv], allowed)
    exact = [qkv.astype(jnp.float32)]
    for a, b in zip(found, value_and_gradients(plain_self, exact, allowed), strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b)
        assert np.abs(a - b).max() < 1e-2 * np.abs(b).max()
        assert np.abs(a - b).mean() < 2e-3 * np.abs(b).max()


def test_what_no_single_block_fits():
    assert fits_single_block(577, 16, 64) and fits_single_block(384, 3, 128)
    assert not fits_single_block(50, 3, 64) and not fits_single_block(50, 4, 80)  # half a tile
    # RUDOLPH-2.7B, whose heads splash attention pads; a v5p has half of the VMEM.
    assert fits_single_block(832, 32, 80) and not fits_single_block(832, 32, 80, "TPU v5p")
    assert not fits_single_block(832, 16, 128)  # splash attention skips empty blocks
    assert not fits_single_block(1664, 32, 80)  # more than a core's memory
    assert not fits_single_block(50, 16, 72)  # groups of 1,152 lanes
    qkv = jnp.zeros((1, 50, 3, 3, 64))
    with force_kernel("single_block_interpreted"):
        assert fused_self_attention(qkv, None) is None
        assert fused_attention(*inputs(209, 64), None) is None
    assert fused_self_attention(qkv[..., :2, :], None) is None  # a CPU


@pytest.mark.parametrize("head_axis", [None, "tensor"])
def test_single_blocks_on_a_mesh(head_axis):
    mesh = Mesh(
        np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
    )  # fmt: skip
    allowed = MASKS["conv"]
    qkv = jax.random.normal(jax.random.key(0), (4, len(allowed), 3, 4, 64))
    placed = jax.device_put(
        qkv, NamedSharding(mesh, PartitionSpec(("data", "fsdp"), None, None, head_axis))
    )

    @jax.jit
    def run(qkv):
        return value_and_gradients(fused_self_attention, [qkv], allowed)

    with force_kernel("single_block_interpreted"), jax.set_mesh(mesh):
        assert fused_self_attention(qkv, allowed) is None  # nobody says how they lie
        with shard_over(("data", "fsdp"), head_axis):
            found = run(placed)
            text = run.lower(placed).compile().as_text()
    assert found[0].sharding.shard_shape(found[0].shape)[0] == 1
    assert "all-gather" not in text
    for a, b in zip(found, value_and_gradients(plain_self, [qkv], allowed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_a_towers_self_attention_is_a_single_block(causal):
    qkv = jax.random.normal(jax.random.key(1), (2, 50, 3, 2, 64))
    expected = self_attention(qkv, causal)
    with force_kernel("single_block_interpreted"):
        np.testing.assert_allclose(self_attention(qkv, causal), expected, rtol=1e-5, atol=1e-5)
        assert "50x50" in jax.jit(self_attention, static_argnums=(1, 2)).lower(
            qkv, causal, False
        ).as_text()


@pytest.mark.parametrize("head_axis", [None, "tensor"])
def test_on_a_mesh_each_device_attends_for_its_rows_and_heads(head_axis):
    mesh = Mesh(
        np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
    )  # fmt: skip
    arrays = inputs(209, 64, B=4, H=2)
    spec = NamedSharding(mesh, PartitionSpec(("data", "fsdp"), head_axis))
    allowed = MASKS["column"]

    @jax.jit
    def run(*arrays):
        return value_and_gradients(fused_attention, arrays, allowed)

    with force_kernel("splash_interpreted"), jax.set_mesh(mesh):
        assert fused_attention(*arrays, allowed) is None  # nobody says how they lie
        with shard_over(("data", "fsdp"), head_axis):
            found = run(*(jax.device_put(x, spec) for x in arrays))
            text = run.lower(*(jax.device_put(x, spec) for x in arrays)).compile().as_text()
    assert found[0].sharding.shard_shape(found[0].shape)[0] == 1
    assert "all-gather" not in text
    for a, b in zip(found, value_and_gradients(plain, arrays, allowed), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_towers_attention_may_be_fused():
    qkv = jax.random.normal(jax.random.key(0), (2, 197, 3, 2, 64))
    lower = jax.jit(self_attention, static_argnums=(1, 2)).lower
    with cpu.forms(False):
        for causal in (False, True):
            expected = self_attention(qkv, causal)
            with force_kernel("splash_interpreted"):
                np.testing.assert_allclose(self_attention(qkv, causal), expected, atol=1e-5)
                fused, plain = (lower(qkv, causal, use).as_text() for use in (True, False))
            assert "2x2x197x197" in plain and "2x2x197x197" not in fused


def test_short_sequences_and_other_platforms_get_no_kernel():
    assert fused_attention(*inputs(209, 64, jnp.bfloat16), None) is None  # a CPU
    with force_kernel("splash_interpreted"):
        assert fused_attention(*inputs(77, 64), None) is None
        with force_kernel("off"):
            assert fused_attention(*inputs(209, 64), None) is None
    with pytest.raises(InputError, match="kernel is 'flash'; expected one of single_block, "):
        force_kernel("flash")


def test_a_kernel_is_part_of_the_key_of_compiled_programs():
    calls = []

    @jax.jit
    def run(*arrays):
        calls.append(1)
        return fused_attention(*arrays, None) is None

    arrays = inputs(209, 64)
    assert run(*arrays)
    with force_kernel("splash_interpreted"):
        assert not run(*arrays)
    assert run(*arrays) and len(calls) == 2


def test_padding_never_leaves_a_query_without_keys():
    padded = padded_mask(MASKS["row"], 256)
    assert padded.any(axis=1).all() and not padded[:209, 209:].any()
    np.testing.assert_array_equal(padded[:209, :209], MASKS["row"])


def test_blocks_follow_the_mask():
    full = np.ones((577, 577), bool)
    assert choose_block(full) == 640 and kept_blocks(full, 640) == 1
    large = mask(PRESETS["1.3B"], "row")
    assert kept_blocks(large, 128) == 34  # of 100
    for name in ("row", "column", "conv"):
        allowed = mask(PRESETS["2.7B"], name)
        block = choose_block(allowed)
        assert kept_blocks(allowed, block) * block**2 < 0.75 * 1152**2


def test_splash_attention_saves_what_it_reads(capsys):
    """Queries, keys, values, result and logsumexp: taking them from [B, T, 3, H, K] is a copy."""
    B, T, H, K = 2, 256, 3, 128
    qkv = jnp.zeros((B, T, 3, H, K))

    def run(x):
        return fused_self_attention(2 * x, None).sum()

    with force_kernel("splash_interpreted"):
        policy = remat_policy(Compute(remat="dots"))
        print_saved_residuals(jax.checkpoint(run, policy=policy), qkv)
    saved = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    floats = [shape for shape in saved if shape.startswith("f32")]
    assert floats == [f"f32[{B},{H},{T},{K}]"] * 4 + [f"f32[{B},{H},{T}]"]
