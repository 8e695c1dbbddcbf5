import jax
import pytest
from jax.sharding import PartitionSpec

from clip_jax import PRESETS, RUCLIP_SMALL, InputError, RuclipSmall, sharding
from clip_jax.model import abstract_params
from experiments.config.run import MeshConfig, OptimConfig
from experiments.training import partitioning
from experiments.training.optimizer import make_optimizer


@pytest.mark.parametrize("name", [*PRESETS, "ruclip-small"])
def test_the_table_names_every_parameter_once(name):
    mesh = partitioning.make_mesh(MeshConfig(data=2, fsdp=2, tensor=1), jax.devices()[:4])
    small = name == "ruclip-small"
    params = abstract_params(*((RUCLIP_SMALL, RuclipSmall) if small else (PRESETS[name],)))
    partitioning.param_shardings(params, sharding.AXES, mesh)


def test_parameters_and_moments_lie_alike():
    mesh = partitioning.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    params = abstract_params(PRESETS["ruclip-vit-base-patch32-224"])
    placed = partitioning.param_shardings(params, sharding.AXES, mesh)
    kernel = placed["visual"]["layers"]["attention"]["qkv_kernel"]
    assert kernel.spec == PartitionSpec(None, "fsdp", None, "tensor", None)
    assert kernel.shard_shape((12, 768, 3, 12, 64)) == (12, 384, 3, 6, 64)
    optimizer = make_optimizer(OptimConfig(clip_norm=1.0), 10)
    state = partitioning.optimizer_shardings(optimizer, params, placed, mesh)
    moments = [s for s in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, dict))
               if isinstance(s, dict)]  # fmt: skip
    assert len(moments) == 2 and all(m == placed for m in moments)


def test_a_parameter_without_a_row_is_the_tables_fault():
    mesh = partitioning.make_mesh(MeshConfig())
    params = {"adapter": jax.ShapeDtypeStruct((4,), "float32")}
    with pytest.raises(ValueError, match="0 rows for adapter"):
        partitioning.param_shardings(params, sharding.AXES, mesh)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=3), "needs 3 devices; found 8"),
        (MeshConfig(data=-1, fsdp=3), "needs 6 devices; found 8"),
        (MeshConfig(data=-1, fsdp=-1), "at most one of them -1"),
        (MeshConfig(data=8, tensor=0), "expected positive sizes"),
    ],
)
def test_meshes_that_do_not_fit(config, message):
    with pytest.raises(InputError, match=message):
        partitioning.make_mesh(config)


def test_heads_that_do_not_divide_are_named():
    mesh = partitioning.make_mesh(MeshConfig(tensor=8))
    named = r"text/layers/attention/out_kernel.*1 is not divisible by config.mesh.tensor"
    with pytest.raises(InputError, match=named):
        partitioning.param_shardings(abstract_params(PRESETS["tiny"]), sharding.AXES, mesh)


def test_batches_are_cut_over_data_and_fsdp(rng):
    mesh = partitioning.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert partitioning.batch_shards(mesh) == 4
    batch = partitioning.put_batch({"image": rng.normal(size=(8, 3))}, mesh)
    assert {s.data.shape for s in batch["image"].addressable_shards} == {(2, 3)}
