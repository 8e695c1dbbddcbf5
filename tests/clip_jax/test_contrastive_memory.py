"""Bytes of the compiled losses and their gradients: nothing grows with the number of pairs."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from clip_jax.contrastive import contrastive_loss, sigmoid_loss

TILE, WIDTH = 64, 16


def temporaries(form, batch, devices=1):
    """Returns temporary bytes per device of both losses' gradients, for a global batch."""
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    options = {"form": form, "tile": TILE, "axis_name": "data"}

    def loss(image, text, scale, bias):
        contrastive = contrastive_loss(image, text, scale, **options)[0]
        sigmoid = sigmoid_loss(image, text, scale, bias, **options)[0]
        return jax.lax.pmean(contrastive + sigmoid, "data")

    specs = (rows, rows, everywhere, everywhere)
    mapped = jax.shard_map(loss, mesh=mesh, in_specs=specs, out_specs=everywhere)
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
        for shape, spec in zip([(batch, WIDTH)] * 2 + [()] * 2, specs, strict=True)
    ]
    compiled = jax.jit(jax.grad(mapped, argnums=(0, 1, 2, 3))).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(("form", "growth"), [("gathered", (3.5, 4.1)), ("tiled", (1, 2.1))])
def test_memory_growth_when_the_batch_doubles(form, growth):
    ratio = temporaries(form, 1024) / temporaries(form, 512)
    assert growth[0] < ratio < growth[1]


def test_ring_memory_per_device_is_independent_of_their_number():
    two, four, eight = (temporaries("ring", 256 * devices, devices) for devices in (2, 4, 8))
    assert two == four == eight
    assert temporaries("ring", 512 * 2, 2) < 2.1 * two
