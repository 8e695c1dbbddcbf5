import dataclasses
import importlib
import json
import math
from importlib.util import find_spec
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.plan_table import MAX_MICROBATCH, planned_config, read_plans, to_csv, to_markdown
from clip_jax import Clip, Compute, InputError, cpu
from clip_jax.model import abstract_params
from experiments import plan
from experiments.config.run import MeshConfig
from experiments.planning.chips import CHIPS, Chip
from experiments.planning.collectives import sent_bytes
from experiments.planning.cycles import Cost, estimate, float_squares, hashed_products
from experiments.planning.flops import matmul_flops
from experiments.planning.plan import EFFORT, _compilation, kept_share, make_plan
from experiments.planning.search import search, variants
from experiments.planning.step import trace_step
from experiments.planning.topology import slice_devices
from experiments.training.partitioning import make_mesh
from rudolph_jax.layout import Layout

HLO = """HloModule step

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %gathered = f32[32,128]{1,0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %sum = f32[8,128]{1,0} all-reduce(%x), replica_groups=mesh['a'=2,'b'=4] {'a'}, to_apply=%add
}

%condition (arg: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%all-reduce-scatter.1 (input: bf16[64]) -> bf16[8] {
  %input = bf16[64]{0} parameter(0)
  ROOT %reduced = bf16[64]{0} all-reduce(%input), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %y = bf16[64]{0} parameter(0)
  %loop = (s32[], f32[8]) while(%start), condition=%condition, body=%body
  %known = (s32[], f32[8]) while(%start), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"2"}}
  %part = bf16[8]{0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %moved = (bf16[64]{0}, bf16[64]{0}) collective-permute-start(%y), source_target_pairs={{0,1}}
}
"""  # noqa: E501


def test_messages_of_loops_count_as_often_as_they_run():
    array, runs = 8 * 128 * 4, 5 + 2
    assert sent_bytes(HLO, 8) == {
        "all-gather": runs * 3 * array,
        "all-reduce": runs * 2 * array / 2,
        "reduce-scatter": 128 * 3 / 4,
        "collective-permute": 128,
    }


def test_messages_of_a_compiled_program():
    mesh = make_mesh(MeshConfig(data=8))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=rows)
    compiled = jax.jit(lambda x: x.sum(0)).lower(x).compile()
    assert sent_bytes(compiled.as_text(), 8) == {"all-reduce": 2 * 7 / 8 * 16 * 4}


def test_operations_of_scans_and_shards_count_as_often_as_they_run():
    mesh = make_mesh(MeshConfig(data=8))

    def product(x, w):
        return x @ w

    def looped(x, w):
        return jax.lax.scan(lambda x, _: (jax.checkpoint(product)(x, w), None), x, length=5)[0]

    sharded = jax.shard_map(
        product, mesh=mesh, in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec("data"),
    )  # fmt: skip
    x, w = jnp.zeros((16, 4)), jnp.zeros((4, 4))
    once = 2 * 16 * 4 * 4
    assert matmul_flops(jax.make_jaxpr(looped)(x, w)) == 5 * once
    assert matmul_flops(jax.make_jaxpr(sharded)(x, w)) == once
    # Backwards twice as much again, and forwards once more for what was not kept but is needed.
    again = jax.make_jaxpr(jax.grad(lambda w: jnp.sin(looped(x, w)).sum()))(w)
    assert matmul_flops(again) == (5 + 2 * 5) * once


@pytest.mark.parametrize("use", [False, True])
def test_only_attention_runs_again_where_dots_are_kept(train_config, use):
    model = train_config.model
    towers = (model.vision, model.vision.tokens), (model.text, model.text.context_length)
    size, (_, length) = model.vision.image_size, towers[1]
    inputs = jnp.zeros((1, length), jnp.int32), jnp.zeros((1, size, size, 3))

    def flops(remat):
        clip = Clip(model, Compute(remat=remat))

        def loss(params):
            return sum(x.sum() for x in clip.apply({"params": params}, *inputs))

        with cpu.forms(use):
            return matmul_flops(jax.make_jaxpr(jax.grad(loss))(abstract_params(model)))

    attention = sum(4 * tokens**2 * tower.width * tower.layers for tower, tokens in towers)
    assert flops("dots") == flops("none") + attention
    assert flops("block") > 1.2 * flops("none")


def test_a_plan_tells_what_lies_where(train_config):
    config = dataclasses.replace(train_config, mesh=MeshConfig(data=2, fsdp=4))
    plan = make_plan(config, slice_devices("cpu:8"), CHIPS["v5e"], mfu=0.5)
    traced = trace_step(config, slice_devices("cpu:8"))
    leaves = jax.tree.leaves(traced.state["params"])
    assert plan.parameters == sum(math.prod(leaf.shape) for leaf in leaves)
    # Most lies on a fourth of the devices' memory; AdamW has two moments of each.
    assert plan.parameters < plan.parameter_bytes < 2 * plan.parameters
    assert plan.optimizer_bytes == pytest.approx(2 * plan.parameter_bytes, rel=1e-3)
    size, length = config.model.vision.image_size, config.model.text.context_length
    assert plan.batch_bytes == 2 * (3 * size**2 + 4 * length)
    assert plan.peak_bytes >= plan.parameter_bytes + plan.optimizer_bytes
    assert plan.fits
    assert plan.model_flops == plan.executed_flops > 0  # no remat
    assert plan.step_seconds == max(plan.compute_seconds, plan.update_seconds, plan.message_seconds)
    assert plan.compute_seconds == plan.executed_flops / (0.5 * 197e12)


@pytest.mark.parametrize("objective", ["clip", "rudolph"])
def test_activations_keep_their_rows(objective, train_config, rudolph_train_config):
    """Sharded parameters are gathered; no product of whole activations is summed over devices."""
    config = train_config if objective == "clip" else rudolph_train_config
    config = dataclasses.replace(
        config,
        mesh=MeshConfig(data=2, fsdp=4),
        data=dataclasses.replace(config.data, batch_size=512),
    )
    plan = make_plan(config, slice_devices("cpu:8"), None)
    # Of a batch so large next to the model, activations would be many times this.
    assert plan.sent_bytes["all-reduce"] < 4 * 4 * plan.parameters
    assert plan.fits is None and plan.step_seconds is None


def test_rudolph_needs_no_image_tokenizer(rudolph_train_config):
    settings = dataclasses.replace(rudolph_train_config.settings, vqgan="nowhere")
    config = dataclasses.replace(rudolph_train_config, settings=settings)
    batch = trace_step(config, slice_devices("cpu:4")).batch
    assert {key: leaf.shape for key, leaf in batch.items()} == {"input_ids": (16, 26)}


def test_search_takes_the_quickest_that_fits(train_config, monkeypatch):
    def pretended(config, devices, chip, **_):
        """Needs up to 4 GB for each row; remat costs up to a quarter more time, fsdp none."""
        shards = len(devices) // config.mesh.tensor
        rows = config.data.batch_size // (shards * config.grad_accum_steps)
        size = rows * {"none": 4e9, "dots": 3e9, "block": 1e9}[config.compute.remat]
        seconds = {"none": 1.0, "dots": 1.1, "block": 1.25}[config.compute.remat]
        seconds += 0.001 * config.grad_accum_steps
        return SimpleNamespace(fits=size < chip.hbm_bytes, peak_bytes=size, step_seconds=seconds)

    monkeypatch.setattr("experiments.planning.search.make_plan", pretended)
    devices, tried = [object()] * 2, []
    chosen, plan = search(
        train_config, devices, CHIPS["v5e"], mfu=0.5, limit=100,
        tell=lambda config, plan: tried.append((config.mesh, config.compute.remat, plan.fits)),
    )  # fmt: skip
    # 16 rows on 2 devices: 4 of them fit in 16 GiB without remat, 8 do not.
    assert (chosen.compute.remat, chosen.grad_accum_steps, chosen.mesh.tensor) == ("none", 2, 1)
    assert plan.peak_bytes == 16e9
    # Nothing more is tried of a mesh and policy once it fits.
    assert len([1 for *_, fits in tried if fits]) == len({(m, r) for m, r, fits in tried if fits})
    none = dataclasses.replace(CHIPS["v5e"], hbm_bytes=1)
    with pytest.raises(InputError, match="no mesh, remat and grad_accum_steps"):
        search(train_config, devices, none, mfu=0.5, limit=1)


def test_variants_divide_the_batch(train_config):
    found = list(variants(train_config, 8))
    assert len({(v.mesh, v.compute.remat, v.grad_accum_steps) for v in found}) == len(found) > 50
    for variant in found:
        shards = variant.mesh.data * variant.mesh.fsdp * variant.grad_accum_steps
        assert variant.data.batch_size % shards == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--topology is needed"),
        (["--topology=v4"], "--topology is 'v4'; expected"),
        (["--topology=cpu:2x2"], "expected a number of devices"),
        (["--topology=cpu:99"], "this process has 8 CPU devices"),
        (["--topology=cpu:8", "--chip=v3"], "--chip is 'v3'; expected one of v4"),
        (["--topology=cpu:8", "--mfu=2"], "--mfu is 2.0"),
        (["--topology=cpu:8", "--search"], "choose a --chip"),
        (["--topology=cpu:8", "--config.stepz=1"], "did you mean config.steps?"),
        (["--topology=cpu:8", "--config.data.batch_size=12"], "expected a multiple of 8"),
        (["--topology=cpu:8", "--config.parallel=pmap"], "only 'jit' can be planned"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    digits = "--config=experiments/configs/digits.py"
    assert plan.main([digits, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_command_prints_json(capsys):
    digits = "--config=experiments/configs/digits.py"
    small = ["--config.compute.unroll=1", "--config.data.batch_size=2"]
    assert plan.main([digits, *small, "--topology=cpu:1", "--json", "--chip=v4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mesh"] == {"data": 1, "fsdp": 1, "tensor": 1}
    assert found["sent_bytes"] == {} and found["fits"]


def test_the_table_of_plans_as_markdown_and_csv(tmp_path):
    row = {
        "config": "rudolph_350m", "topology": "v5e:2x4",
        "mesh": {"data": 1, "fsdp": 8, "tensor": 1}, "grad_accum_steps": 16, "fits": False,
        "parameter_bytes": 1e9, "optimizer_bytes": 2e9, "batch_bytes": 0,
        "temporary_bytes": None, "peak_bytes": 2e10, "sent_bytes": None,
    }  # fmt: skip
    path = tmp_path / "rows.jsonl"
    assert read_plans(path) == []
    path.write_text(json.dumps(row) + "\n")
    line = to_markdown(read_plans(path)).splitlines()[-1]
    assert line == (
        "| rudolph_350m | v5e:2x4 | 8 | 1x8x1 | 16 | 1.00 | 2.00 | 0.00 | ? | 20.00 | no | ? |"
    )
    assert to_csv(read_plans(path)).splitlines()[-1] == (
        "rudolph_350m,v5e:2x4,8,1x8x1,16,1.00,2.00,0.00,?,20.00,no,?"
    )


@pytest.mark.parametrize("name", MAX_MICROBATCH)
@pytest.mark.parametrize("devices", [8, 64, 2048])
def test_the_tables_configs_divide_their_batches(name, devices):
    config = planned_config(name, devices)
    assert config.data.batch_size % (devices * config.grad_accum_steps) == 0
    wide = name.startswith("rudolph") and devices == 2048
    assert devices % config.mesh.fsdp == 0 and (config.mesh.fsdp == 32) == wide


CYCLES = """HloModule step, is_scheduled=true

%hash (a: u32[8]) -> f32[64,64] {
  %a = u32[8]{0} parameter(0)
%SHIFTS%
  ROOT %d = f32[64,64]{1,0} convolution(%a, %a), dim_labels=bf_io->bf
}

%norm (b: f32[64,64]) -> f32[64] {
  %b = f32[64,64]{1,0} parameter(0)
  ROOT %r = f32[64]{0} reduce(%b, %b), dimensions={1}, to_apply=%add
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %w = f32[64,64]{1,0} parameter(0)
  %start = f32[64,64]{1,0} all-gather-start(%w), replica_groups=[2,4]<=[8], dimensions={0}
  %n = f32[64]{0} fusion(%w), kind=kLoop, calls=%norm, backend_config={"estimated_cycles":"300"}
  %done = f32[256,64]{1,0} all-gather-done(%start)
  ROOT %p = f32[64,64]{1,0} fusion(%w), kind=kOutput, calls=%hash, backend_config={"estimated_cycles":"1500"}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %loop = (s32[], f32[8]) while(%x), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"10"}}
  %splash_mha_fwd.1 = (f32[2,4,256,128]{3,2,1,0}, bf16[2,4,256,64]{3,2,1,0}) custom-call(%loop), custom_call_target="tpu_custom_call"
  ROOT %q = f32[64,64]{1,0} convolution(%x, %x), dim_labels=bf_io->bf, backend_config={"estimated_cycles":"600"}
}
""".replace("%SHIFTS%", "\n".join(f"  %x{i} = u32[8]{{0}} xor(%a, %a)" for i in range(9)))  # noqa: E501


def test_cycles_of_loops_count_as_often_as_they_run():
    chip = Chip(flops=1e9, hbm_bytes=1e9, hbm_bandwidth=1e12, ici_bandwidth=1e9)
    found = estimate(CYCLES, "v5e", chip, devices=8, kept_share=0.5)
    assert found.costs["product"] == Cost(600 / 1.5e9, 64 * 64 * 4, 1)
    assert found.costs["product and hash"].seconds == pytest.approx(10 * 1500 / 1.5e9)
    assert found.costs["reduction"].launches == 10
    # Two products of 256 x 256 by 64 for 8 heads in all, of which half is kept, at 40 %.
    kernel = 2 * 2 * 8 * 256 * 256 * 64 * 0.5 / 0.4e9
    assert found.costs["kernel"].seconds == pytest.approx(kernel)
    # Three quarters of the gathered array are sent, while 300 cycles of other work run.
    sent = 3 * 64 * 64 * 4 / 1e9
    assert found.exposed_seconds == pytest.approx(10 * (sent - 300 / 1.5e9))
    assert found.seconds == pytest.approx(
        sum(cost.seconds for cost in found.costs.values()) + found.exposed_seconds
    )
    assert hashed_products(CYCLES) == 10
    assert float_squares(CYCLES, 64) == ["f32[64,64]"] and not float_squares(CYCLES, 256)


SINGLE_BLOCK = """ENTRY %main (p: bf16[8]) -> bf16[8] {
  %single_block_attention_forward.13 = bf16[128,197,768]{2,1,0:T(8,128)(2,1)} custom-call(%a), custom_call_target="tpu_custom_call"
  ROOT %single_block_attention_backward.10 = bf16[128,197,2304]{2,1,0:T(8,128)(2,1)} custom-call(%b), custom_call_target="tpu_custom_call"
}
"""  # noqa: E501


def test_attention_in_a_single_block_multiplies_whole_tiles():
    chip = Chip(flops=1e12, hbm_bytes=1e9, hbm_bandwidth=1e15, ici_bandwidth=1e9)
    found = estimate(SINGLE_BLOCK, "v5e", chip)
    # 197 tokens are 256; two products forwards and five backwards, all masks' blocks.
    flops = (2 + 5) * 2 * 128 * 256 * 256 * 768
    assert found.costs["kernel"].seconds == pytest.approx(flops / 0.4e12)
    slow = Chip(flops=1e18, hbm_bytes=1e9, hbm_bandwidth=1e9, ici_bandwidth=1e9)
    sent = 128 * 197 * (768 + 2304) * 2 / 1e9
    assert estimate(SINGLE_BLOCK, "v5e", slow).costs["kernel"].seconds == pytest.approx(sent)


SPREAD = """%gather (w: bf16[64,64]) -> bf16[256,64] {
  %w = bf16[64,64]{1,0} parameter(0)
  ROOT %g = bf16[256,64]{1,0} all-gather(%w), replica_groups=[2,4]<=[8], dimensions={0}
}

%async_collective_fusion.1 (w: bf16[64,64]) -> bf16[256,64] {
  %w = bf16[64,64]{1,0} parameter(0)
  %p = bf16[64,64]{1,0} convolution(%w, %w), dim_labels=bf_io->bf
  ROOT %g = bf16[256,64]{1,0} all-gather(%w), replica_groups=[2,4]<=[8], dimensions={0}
}

ENTRY %main (w: bf16[64,64]) -> bf16[256,64] {
  %w = bf16[64,64]{1,0} parameter(0)
  %async-collective-start.3 = bf16[256,64]{1,0} fusion(%w), kind=kCustom, calls=%gather
  %fusion.7 = bf16[64,64]{1,0} fusion(%w), kind=kOutput, calls=%async_collective_fusion.1, backend_config={"estimated_cycles":"3000"}
  ROOT %async-collective-done.3 = bf16[256,64]{1,0} fusion(%fusion.7), kind=kCustom, calls=%gather
}
"""  # noqa: E501


def test_a_collective_that_is_spread_over_fusions_is_sent_once():
    """The product in the middle counts as one, and covers what is sent meanwhile."""
    chip = Chip(flops=1e9, hbm_bytes=1e9, hbm_bandwidth=1e12, ici_bandwidth=1e10)
    assert sent_bytes(SPREAD, 8) == {"all-gather": 3 * 64 * 64 * 2}
    found = estimate(SPREAD, "v5e", chip, devices=8)
    assert found.costs["product"].seconds == pytest.approx(3000 / 1.5e9)
    assert found.exposed_seconds == pytest.approx(3 * 64 * 64 * 2 / 1e10 - 3000 / 1.5e9)


def test_a_fused_reduce_scatter_is_a_message_that_nothing_covers():
    chip = Chip(flops=1e9, hbm_bytes=1e9, hbm_bandwidth=1e12, ici_bandwidth=1e9)
    found = estimate(HLO, "v5e", chip, devices=8)
    assert found.exposed_seconds == pytest.approx(sum(sent_bytes(HLO, 8).values()) / 1e9)
    assert found.costs["message"].launches == 2 * (5 + 2) + 1 + 1


def test_masks_tell_the_share_of_blocks():
    config = importlib.import_module("experiments.configs.rudolph_2_7b").train_config()
    assert 0.3 < kept_share(config) < 0.75
    clip = importlib.import_module("experiments.configs.ruclip_vit_base_patch16_224")
    assert kept_share(clip.train_config()) == 1.0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--topology=cpu:8", "--full"], "--topology is 'cpu:8'; expected one of v4, v5e"),
        (["--topology=v5e:2x2", "--full", "--quick"], "--full goes with neither --quick nor"),
    ],
)
def test_cycles_need_a_tpus_compiler_at_full_effort(capsys, arguments, message):
    assert plan.main(["--config=experiments/configs/digits.py", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_step_compiled_for_tpus_hashes_once_and_holds_no_scores(monkeypatch):
    """RUDOLPH with fused attention and dropout of outputs, and with dropout of weights too."""
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    base = importlib.import_module("experiments.configs.rudolph_350m").train_config()
    model = dataclasses.replace(base.model, layers=5, width=256, heads=4)
    devices = slice_devices("v5e:2x2")[:1]
    for rate in (0.0, 0.1):
        config = dataclasses.replace(
            base, model=dataclasses.replace(model, attention_dropout=rate), mesh=MeshConfig(),
            data=dataclasses.replace(base.data, batch_size=4),
        )  # fmt: skip
        hlo = trace_step(config, devices).traced.lower().compile().as_text()
        T = Layout(model).sequence_length
        assert bool(float_squares(hlo, T)) == (rate > 0)
        assert hashed_products(hlo) == 0


def test_a_quick_plan_leaves_the_compilers_settings_as_they_were():
    def settings():
        names = (EFFORT, "jax_optimization_level")
        return {name: getattr(jax.config, name) for name in names if hasattr(jax.config, name)}

    before = settings()
    with _compilation(quick=True):
        assert settings() != before
    assert settings() == before
    with _compilation(quick=False):
        assert settings() == before
