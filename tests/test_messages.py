"""What a person is told who does something wrong: one line, with the exit status for it."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli_commands import COMMANDS, main_of
from PIL import Image

import clip_jax
import converters
import rudolph_jax
from clip_jax.cli import OUT_OF_MEMORY
from clip_jax.layers import unstack_layers
from rudolph_jax import PretrainedRudolph, PretrainedVqgan, RudolphConfig, VqganConfig
from rudolph_jax.model import abstract_params
from rudolph_jax.vqgan import abstract_params as abstract_vqgan_params

ROOT = Path(__file__).parent.parent
CONFIG = "--config=experiments/configs/digits.py"
APP = "app --model={H}/rudolph --vqgan={H}/vqgan"


def ones(tree):
    return jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), tree)


@pytest.fixture(scope="module")
def home(tmp_path_factory, goldens):
    """Small models of each kind, and some files that are not what they seem."""
    home = tmp_path_factory.mktemp("home")
    converters.convert("ruclip", goldens / "ruclip", home / "ruclip")
    converters.convert("youtokentome", goldens / "tokenizer", home / "words")
    config = RudolphConfig(
        left_text_length=8, image_tokens_per_side=2, right_text_length=6, text_vocab_size=700,
        image_vocab_size=17, width=8, layers=1, heads=2, text_special_tokens=8,
    )  # fmt: skip
    tokenizer = clip_jax.load_tokenizer(home / "words")
    params = ones(unstack_layers(abstract_params(config)))
    PretrainedRudolph(config, params, tokenizer).save(home / "rudolph")
    vqgan = VqganConfig(
        channels=8, channel_multipliers=(1, 2), residual_blocks=1, attention_levels=(),
        latent_channels=8, codebook_size=17, norm_groups=4,
    )  # fmt: skip
    PretrainedVqgan(vqgan, ones(abstract_vqgan_params(vqgan))).save(home / "vqgan")
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(home / "cut.png")
    (home / "cut.png").write_bytes((home / "cut.png").read_bytes()[:400])
    (home / "text.txt").write_text("words")
    (home / "broken.py").write_text("def get_config(:\n")
    (home / "full").mkdir()
    (home / "full" / "mine.txt").write_text("mine")
    return home


@pytest.fixture
def told(home, goldens, tmp_path, monkeypatch, capsys):
    """Runs a command line; the one line that it printed. {H}: home, {G}: goldens, {T}: anew."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(command: str, line: str, status: int = 2) -> str:
        words = line.replace("{H}", str(home)).replace("{G}", str(goldens))
        words = words.replace("{T}", str(tmp_path)).split()
        capsys.readouterr()
        assert main_of(command)(words) == status
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and error[-1] == "\n", error
        return error

    return run


WALK = [
    ("benchmarks", "fly", "invalid choice: 'fly'"),
    ("benchmarks", "decode --batches=1,0", "'1,0' is no list of positive numbers"),
    ("benchmarks", "decode --preset=350", "invalid choice: '350'"),
    ("benchmarks", "loss --batches=no", "'no' is no list of positive numbers"),
    ("benchmarks", "encode --preset=clip-vit-base-patch32", "invalid choice: 'clip-vit-base"),
    ("benchmarks", "convert --preset=big", "invalid choice: 'big'"),
    ("benchmarks", "data --images=few", "'few' is no list of positive numbers"),
    ("benchmarks", "scaling --sides=0", "'0' is no list of positive numbers"),
    ("benchmarks", "startup --preset=big", "invalid choice: 'big'"),
    ("benchmarks", "train --batch=0", "--batch is 0; expected at least 1"),
    ("benchmarks", "train --models=clop", "'clop' is unknown; expected clip, rudolph"),
    ("benchmarks", "decode --without=jax", "'jax' is unknown; expected torch, original"),
    ("benchmarks", "decode --rounds=0", "--rounds is 0; expected at least 1"),
    ("clip_jax", "search кот {H} --model={H}/vqgan", "of kind 'vqgan'; expected 'clip'"),
    ("clip_jax", "search кот {T}/absent --model={H}/ruclip", "absent"),
    ("clip_jax", "search кот {H}/full --model={H}/ruclip", "full"),
    ("clip_jax", "search кот {H} --model={H}/ruclip --count=0", "not a positive integer"),
    ("clip_jax", "search кот {H}/full --model={H}/ruclip --minus=", "the text is empty"),
    ("clip_jax", "index {T}/absent --model={H}/ruclip", "absent: no images can be read from it"),
    ("clip_jax", "index {H}/full --model={H}/ruclip --out={T}/index", "none of 0 images can be"),
    ("clip_jax", "index gs+x://b/c --model={H}/ruclip", "gs+x"),
    ("clip_jax", "score {T}/absent --model={H}/ruclip", "absent: no images can be read from it"),
    ("clip_jax", "score {H}/full --model={H}/ruclip", "full: holds no images with texts"),
    ("clip_jax", "score {H}/full --model={H}/ruclip --min=2", "'2' is no cosine"),
    ("clip_jax", "score {H}/full --model={H}/ruclip --part=2/2", "--part is '2/2'; expected K/N"),
    ("clip_jax", "score {H} --model={H}/ruclip --captions={H}/full", "full: holds no bulk work"),
    ("clip_jax", "export {H}/full {T}/out", "full: is no index; expected a folder that"),
    ("clip_jax", "export {H}/full {T}/out --format=csv", "invalid choice: 'csv'"),
    ("converters", "", "the following arguments are required"),
    ("converters", "mp3 a b", "invalid choice: 'mp3'"),
    ("converters", "ruclip {T}/absent {T}/out", "absent: does not exist"),
    ("converters", "ruclip {G}/ruclip {H}/full", "full: already exists; remove it or name"),
    ("converters", "ruclip {G}/ruclip {H}/text.txt/out", "text.txt"),
    ("converters", "ruclip {G}/rudolph_v2 {T}/out", "not ruclip"),
    ("converters", "rudolph {G}/ruclip {T}/out", "not rudolph"),
    ("converters", "rudalle {G}/ruclip {T}/out", "not rudalle"),
    ("converters", "vqgan {G}/ruclip {T}/out", "not vqgan"),
    ("converters", "hf-clip {G}/ruclip {T}/out", "not hf-clip"),
    ("converters", "ruclip-small {G}/ruclip {T}/out", "not ruclip-small"),
    ("converters", "ruclip-small {G}/ruclip_small {T}/out --vocabulary={T}/absent", "absent"),
    ("converters", "openai-clip {H}/text.txt {T}/out", "text.txt"),
    ("converters", "youtokentome {H}/text.txt {T}/out", "text.txt"),
    ("converters", "export {T}/absent {T}/out", "absent: not a model folder"),
    ("converters", "export {G}/ruclip {T}/out", "a foreign checkpoint must be converted first"),
    ("converters", "jax-export {H}/words {T}/out", "a model of kind 'tokenizer'; expected clip"),
    ("converters", "pretrained no-such-model", "is no folder, no OWNER/NAME"),
    ("converters", "pretrained a/b", "HF_HUB_OFFLINE is set"),
    ("converters", "push-to-hub {H}/full a/b", "not a model folder"),
    ("rudolph_jax", "paint", "invalid choice: 'paint'"),
    ("rudolph_jax", "write мир", "required: --model"),
    ("rudolph_jax", "write мир --model={T}/absent", "absent: not a model folder"),
    ("rudolph_jax", "write мир --model={H}/ruclip", "holds a model of kind 'clip'; expected"),
    ("rudolph_jax", "write мир --model={G}/ruclip", "must be converted first"),
    ("rudolph_jax", "write мир --model={H}/rudolph --count=0", "'0' is not a positive integer"),
    ("rudolph_jax", "write мир --model={H}/rudolph --top-p=7", "top_p is 7.0; expected 0 to 1"),
    ("rudolph_jax", "write мир --model={H}/rudolph --dtype=int8", "invalid choice: 'int8'"),
    ("rudolph_jax", "draw мир --model={H}/rudolph", "no image tokenizer was given"),
    ("rudolph_jax", "draw мир --model={H}/rudolph --vqgan={H}/words", "of kind 'tokenizer'"),
    ("rudolph_jax", "draw мир --model={H}/rudolph --vqgan={H}/vqgan --out={H}/full", "exists"),
    ("rudolph_jax", "draw мир --model={H}/rudolph --vqgan={H}/vqgan --keep=up", "--image=FILE"),
    ("rudolph_jax", "draw --model={H}/rudolph --vqgan={H}/vqgan", "give one, or --prompts=FILE"),
    ("rudolph_jax", "draw --prompts={T}/no --model={H}/rudolph --vqgan={H}/vqgan", "no"),
    ("rudolph_jax", "draw --prompts={H}/text.txt --format=zip --model={H}/rudolph", "'zip'"),
    ("rudolph_jax", "caption {H}/full --model={H}/rudolph --vqgan={H}/vqgan", "holds no image"),
    ("rudolph_jax", "caption {H}/cut.png --model={H}/rudolph --vqgan={H}/vqgan", "cut.png"),
    ("rudolph_jax", "caption {H}/text.txt --model={H}/rudolph --vqgan={H}/vqgan", "text.txt"),
    ("rudolph_jax", "caption {T}/absent --model={H}/rudolph --vqgan={H}/vqgan", "absent"),
    ("rudolph_jax", "classify {H}/cut.png --classes=a --model={H}/rudolph --vqgan={H}/vqgan",
     "at least two names"),
    ("rudolph_jax", "answer что? --image={H}/full --model={H}/rudolph --vqgan={H}/vqgan", "full"),
    ("rudolph_jax", "app --model={H}/rudolph", "required: --vqgan"),
    ("rudolph_jax", APP + " --upscaler={T}/absent", "absent: not a model folder"),
    ("rudolph_jax", "draw мир --model={H}/rudolph --vqgan={H}/vqgan --upscale=4", "--upscaler="),
    ("rudolph_jax", "draw мир --model={H}/rudolph --vqgan={H}/vqgan --upscaler={H}/vqgan",
     "of kind 'vqgan'; expected 'upscaler'"),
    ("rudolph_jax", "draw --prompts={H}/text.txt --model={H}/rudolph --upscaler={H}/vqgan",
     "with --prompts leave it out"),
    ("rudolph_jax", "upscale {H}/cut.png", "required: --model"),
    ("rudolph_jax", "upscale {H}/cut.png --model={H}/vqgan", "expected 'upscaler'"),
    ("rudolph_jax", "upscale {H}/cut.png --model={H}/vqgan --overlap=2.5", "'2.5' is not a number"),
    ("converters", "real-esrgan {G}/vqgan {T}/out", "not real-esrgan"),
    ("rudolph_jax", APP + " --port=70000", "'70000' is not a port; expected 0 to 65535"),
    ("rudolph_jax", APP + " --max-labels=0", "'0' is not a positive integer"),
    ("rudolph_jax", APP + " --images={H}", "name its folder with --ruclip"),
    ("rudolph_jax", APP + " --ruclip={T}/absent", "absent: not a model folder"),
    ("rudolph_jax", APP + " --ruclip={H}/ruclip --images={H}/full", "full: holds no images"),
    ("docs.tools.app_images", "{T}/out --models={T}/absent", "absent"),
    ("docs.tools.upscaling_images", "{T}/out --model={H}/vqgan", "'upscaler'"),
    ("experiments.train", "", "--config=FILE and --workdir=DIR are both needed"),
    ("experiments.train", "--config={T}/absent.py --workdir={T}/run", "cannot be read"),
    ("experiments.train", "--config={H}/broken.py --workdir={T}/run", "broken.py"),
    ("experiments.train", CONFIG + " --workdir={T}/run --config.stepz=1", "config.steps?"),
    ("experiments.train", CONFIG + " --workdir={T}/run --config.steps=many", "many"),
    ("experiments.train", CONFIG + " --workdir={T}/run --config.steps=-1", "steps is -1"),
    ("experiments.train", CONFIG + " --workdir={T}/run more", "unknown argument 'more'"),
    ("experiments.train", CONFIG + " --workdir={T}/run --config.data.name=no", "'no'"),
    ("experiments.train", CONFIG + " --workdir={H}/text.txt", "text.txt"),
    ("experiments.train", CONFIG + " --workdir={T}/run --distributed=here", "expected auto, none"),
    ("experiments.evaluate", "taste", "invalid choice: 'taste'"),
    ("experiments.evaluate", "zero-shot --distributed=here --model={H}/ruclip --data=no",
     "--distributed=here; expected auto, none or"),
    ("experiments.evaluate", "retrieval --model={H}/vqgan --data={H}/full", "are required: --sets"),
    ("experiments.sweeping.worker", "{T}/no.json {T}/run", "no.json: cannot be read"),
    ("experiments.sweep", "", "--config=FILE and --workdir=DIR are both needed"),
    ("experiments.sweep", "--config={T}/no.py --workdir={T}/run", "is no experiment file"),
    ("experiments.sweep", "--config={H}/broken.py --workdir={T}/run", "broken.py"),
    ("experiments.sweep", CONFIG + " --workdir={T}/run --seeds=no", "invalid int value: 'no'"),
    ("experiments.sweep", CONFIG + " --workdir={T}/run --grid stepz=1,2", "stepz"),
    ("experiments.model", "{T} {T}/out", "no checkpoints here; expected a run's checkpoints/"),
    ("experiments.model", "{T} {T}/out --step=x", "'x' is no step; expected a number or best"),
    ("experiments.plan", CONFIG, "--topology is needed"),
    ("experiments.plan", CONFIG + " --topology=v9:1", "v9"),
    ("experiments.plan", CONFIG + " --topology=cpu:8 --mfu=2", "--mfu is 2.0"),
    ("experiments.plan", CONFIG + " --topology=cpu:8 --config.stepz=1", "config.steps?"),
    ("benchmarks.plan_table", "--rows={T}/rows.jsonl --configs=no", "--configs is 'no'; expected"),
    ("experiments.preflight", CONFIG + " --step-seconds=0", "--step-seconds is 0.0; expected a"),
    ("experiments.preflight", CONFIG + " --config.stepz=1", "config.steps?"),
    ("experiments.preflight", CONFIG + " --config.data.name=no", "data: config.data.name is 'no'"),
    ("experiments.preflight", "", "--config=FILE and --workdir=DIR are both needed"),
    ("experiments.prepare", "{T}/absent {T}/out", "absent"),
    ("experiments.prepare", "{H}/full {T}/out", "full"),
    ("experiments.prepare", "{H}/full {T}/out --vqgan={H}/vqgan", "needed together"),
    ("experiments.prepare", "{H}/full {T}/out --part=3/3", "--part is '3/3'; expected K/N"),
    ("experiments.prepare", "{H}/full {T}/out --part=0/3 --finish", "two calls"),
    ("experiments.prepare", "{H}/full {T}/out --shard-bytes=0", "--shard-bytes is 0; expected"),
    ("experiments.prepare", "{H}/full {T}/out --engine=no", "--engine is 'no'; expected ray or"),
    ("experiments.prepare", "{H}/full {T}/out --engine=ray --part=0/3", "leave one out"),
    ("experiments.translate", "--model={H}/full --cache={T}/c.json", "nothing to translate"),
    ("experiments.translate", "--model={H}/full --cache={T}/c.json --sets=mnist", "config.json"),
    ("experiments.translate", "--model={H}/full --cache={T}/c.json --texts={H}/cut.png", "UTF-8"),
    ("experiments.quickstart", "--data=faces", "invalid choice: 'faces'"),
    ("experiments.quickstart", "--workdir={H}/text.txt", "text.txt"),
    ("benchmarks.loss_memory", "--batch=7", "--batch is 7; expected a positive multiple of 8"),
    ("benchmarks.accelerator", "--programs=no", "--programs is 'no'; expected one of train"),
    ("benchmarks.gpu", "--preset=large", "--preset is 'large'; expected one of auto, full, tiny"),
    ("benchmarks.gpu", "--minutes=-1", "--minutes is -1.0; expected a positive number"),
    ("benchmarks.gpu", "--without=jax", "--without is 'jax'; expected one of torch"),
    ("benchmarks.gpu", "--out={T}/gpu.md", "expected a JSON file"),
    ("benchmarks.fine_tuning", "--images=0", "--images is 0; expected at least 8"),
    ("docs.tools.structure_images", "{H}/text.txt/out", "text.txt"),
    ("benchmarks.input_pipeline", "--images=0", "--images is 0; expected at least 1"),
    ("benchmarks.lost_process", "--processes=1", "--processes is 1; expected at least 2"),
    ("benchmarks.lost_process", "--steps=1", "--steps is 1; expected at least 20"),
    ("benchmarks.scale_table", "--rows=1", "unrecognized arguments: --rows=1"),
    ("benchmarks.table_planning", "--rows=0", "--rows is 0; expected at least 1"),
    ("benchmarks.search", "--rows=0", "not a positive integer"),
    ("benchmarks.stream", "--records 0", "--records is 0; expected at least 1"),
    ("benchmarks.stream", "--processes=0", "--processes is 0; expected at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "line", "expected"), WALK)
def test_one_line(told, command, line, expected):
    assert expected in told(command, line)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command(told, command, capsys):
    assert command in {walked for walked, _, _ in WALK}
    told(command, "--no-such-option")
    assert main_of(command)(["--no-such-option", "--debug"]) == 2
    trace = capsys.readouterr().err
    assert trace.startswith("Traceback") and "InputError" in trace
    assert re.fullmatch(r"error: .*", trace.splitlines()[-1])
    assert main_of(command)(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rudolph-jax ")


def exhausted(*_):
    raise jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes.\nDetails:"
    )


def test_no_memory_on_the_device(told, monkeypatch):
    monkeypatch.setattr(rudolph_jax.cli_commands, "write", exhausted)
    line = told("rudolph_jax", "write мир --model={H}/rudolph", OUT_OF_MEMORY)
    assert "no memory left on the device" in line and "8589934592 bytes" in line
    assert "try a smaller --batch-size or --dtype=bfloat16" in line
    monkeypatch.setattr("experiments.train.train", exhausted)
    line = told("experiments.train", CONFIG + " --workdir={T}/run", OUT_OF_MEMORY)
    assert "a smaller config.data.batch_size" in line


def test_no_memory_on_the_host(told, monkeypatch):
    def too_large(*_):
        raise MemoryError("Unable to allocate 8.00 GiB for an array with shape (2147483648,)")

    monkeypatch.setattr(rudolph_jax.cli_commands, "write", too_large)
    line = told("rudolph_jax", "write мир --model={H}/rudolph", OUT_OF_MEMORY)
    assert "no memory left on the host" in line and "8.00 GiB" in line


def test_errors_that_are_nobodys_input_keep_their_trace(told, monkeypatch):
    def wrong(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault of the compiler")

    monkeypatch.setattr(rudolph_jax.cli_commands, "write", wrong)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        told("rudolph_jax", "write мир --model={H}/rudolph")


def test_doctor(monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert main_of("rudolph_jax")(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert f"jax {jax.__version__}" in printed and "8 x cpu" in printed
    assert "converted models: /somewhere/rudolph-jax/models" in printed
    assert "self-test: 9 codes" in printed


def test_doctor_finds_a_model_that_does_not_agree_with_itself(monkeypatch):
    right = PretrainedRudolph.logits
    monkeypatch.setattr(PretrainedRudolph, "logits", lambda self, ids: -jnp.abs(right(self, ids)))
    with pytest.raises(RuntimeError, match="self-test: sampled"):
        rudolph_jax.doctor.self_test()
