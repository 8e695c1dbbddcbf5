"""Checkpoints as training programs save them: wrappers in names, entries around the state dict."""

import json
import shutil

import jax
import numpy as np
import pytest
from archives import Raw, build, call, name, new, tensor, value, write_archive
from foreign import hf_folder

from clip_jax import InputError, model_folder
from converters import convert, export, safetensors_file, torch_file, torch_writer
from converters.__main__ import main
from converters.tensor_names import canonicalize
from converters.weights import Selection, open_weights

GOLDENS = {  # kind -> folder of the golden, its weights
    "ruclip": ("ruclip", "pytorch_model.bin"),
    "ruclip-small": ("ruclip_small", "ViT-B32-small.pt"),
    "rudolph": ("rudolph_plain", "pytorch_model.bin"),
    "rudalle": ("rudalle_v3", "pytorch_model.bin"),
    "vqgan": ("vqgan", "vqgan.model.ckpt"),
    "real-esrgan": ("real_esrgan_x1", "RealESRGAN_x1.pth"),
}


def renamed(goldens, folder, kind, change, under=""):
    """A copy of a golden whose tensors have other names. Returns it and the tensors' own names."""
    golden, file = GOLDENS[kind]
    shutil.copytree(goldens / golden, folder, ignore=lambda *_: {"outputs.npz"})
    tensors = {n: np.array(t) for n, t in torch_file.read(folder / file).items()}
    torch_writer.write(folder / file, {change(n): t for n, t in tensors.items()}, under)
    return folder, list(tensors)


def params_of(folder):
    return model_folder.read_params(folder)


def report_of(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [("ruclip", "_orig_mod.")]
    + [(kind, prefix) for kind in GOLDENS for prefix in ("module.", "model._orig_mod.module.")],
)
def test_prefixes_of_ddp_compile_and_lightning_are_stripped(tmp_path, goldens, kind, prefix):
    under = "state_dict" if prefix.startswith("model") else ""
    folder, names = renamed(goldens, tmp_path / "in", kind, lambda n: prefix + n, under)
    if kind == "vqgan" and prefix.startswith("model"):
        names = [f"model.{n}" for n in names]  # as a whole VQGanGumbelVAE, whose names these are
    summary = convert(kind, folder, tmp_path / "ours")
    convert(kind, goldens / GOLDENS[kind][0], tmp_path / "plain")
    found, expected = params_of(tmp_path / "ours"), params_of(tmp_path / "plain")
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    report = report_of(tmp_path / "ours")
    assert [entry["source"] for entry in report["tensors"]] == names
    assert report["tensors"][0]["in_file"].startswith(prefix)
    rules = {rule["rule"]: rule["tensors"] for rule in report["names"]["rules"]}
    for component in prefix.removesuffix(".").split("."):
        kept = kind == "vqgan" and component == "model"
        assert rules[f"{component}."] == (0 if kept else len(names))
        assert kept or f"{len(names)} names without '{component}.'" in str(summary)
    assert report["names"]["entry"] == under
    export(tmp_path / "ours", tmp_path / "back")
    suffixes = (".bin", ".pt", ".pth", ".ckpt")
    (written,) = (p for p in (tmp_path / "back").iterdir() if p.suffix in suffixes)
    assert list(torch_file.read(written)) == names


def test_a_wrapped_submodule_is_unwrapped(tmp_path, goldens):
    def change(n):
        n = n.replace("visual.", "visual._orig_mod.")
        return n.replace("resblocks.1.", "resblocks.1.module.")

    folder, names = renamed(goldens, tmp_path / "in", "ruclip", change)
    convert("ruclip", folder, tmp_path / "ours")
    report = report_of(tmp_path / "ours")
    assert [entry["source"] for entry in report["tensors"]] == names
    visual = sum(n.startswith("visual.") for n in names)
    assert {"rule": "_orig_mod.", "origin": "torch.compile", "tensors": visual} in (
        report["names"]["rules"]
    )


@pytest.mark.parametrize("layout", ["safetensors", "safetensors-sharded", "bin", "bin-sharded"])
def test_every_format_of_transformers_clip(tmp_path, small_config, layout):
    folder = hf_folder(tmp_path / "hf", small_config, layout)
    convert("hf-clip", folder, tmp_path / "plain")
    write, read = (
        (safetensors_file.write, safetensors_file.read)
        if layout.startswith("safetensors")
        else (torch_writer.write, torch_file.read)
    )
    for file in folder.iterdir():
        if file.suffix in (".safetensors", ".bin"):
            write(file, {f"model.module.{n}": np.array(t) for n, t in read(file).items()})
        elif file.name.endswith(".index.json"):
            index = json.loads(file.read_text())
            index["weight_map"] = {f"model.module.{n}": s for n, s in index["weight_map"].items()}
            file.write_text(json.dumps(index))
    convert("hf-clip", folder, tmp_path / "ours")
    found, expected = params_of(tmp_path / "ours"), params_of(tmp_path / "plain")
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    rules = report_of(tmp_path / "ours")["names"]["rules"]
    assert [rule["rule"] for rule in rules] == ["module.", "model."]


def test_a_prefix_that_only_some_tensors_have_is_refused_with_the_command(
    tmp_path, goldens, capsys
):
    folder, names = renamed(
        goldens, tmp_path / "in", "ruclip", lambda n: n if n == "logit_scale" else f"model.{n}"
    )
    assert main(["ruclip", str(folder), str(tmp_path / "ours")]) == 2
    line = capsys.readouterr().err
    assert "61 of 62 tensor names begin with 'model.', and 'logit_scale' does not" in line
    assert "add --prefix=model." in line and line.count("\n") == 1
    assert not (tmp_path / "ours").exists()
    # The command takes those below it, of which one is missing then.
    assert main(["ruclip", str(folder), str(tmp_path / "ours"), "--prefix=model."]) == 2
    assert "tensor 'logit_scale' is missing" in capsys.readouterr().err


def test_tensors_not_below_the_prefix_are_listed(tmp_path, goldens):
    folder = tmp_path / "in"
    shutil.copytree(goldens / "ruclip", folder)
    tensors = {n: np.array(t) for n, t in torch_file.read(folder / "pytorch_model.bin").items()}
    both = {f"{who}.{n}": t + (who == "teacher") for n, t in tensors.items()
            for who in ("student", "teacher")}  # fmt: skip
    torch_writer.write(folder / "pytorch_model.bin", both)
    with pytest.raises(InputError, match=r"--prefix=student. or --prefix=teacher."):
        convert("ruclip", folder, tmp_path / "ours")
    convert("ruclip", folder, tmp_path / "ours", prefix="teacher")
    scale = params_of(tmp_path / "ours")["logit_scale"]
    np.testing.assert_array_equal(scale, tensors["logit_scale"] + 1)
    left_out = report_of(tmp_path / "ours")["left_out"]
    assert [entry["source"] for entry in left_out] == [f"student.{n}" for n in tensors]
    assert left_out[0]["reason"] == "not below --prefix=teacher"
    with pytest.raises(InputError, match="no tensor name begins with 'pupil.'; .*'student'"):
        convert("ruclip", folder, tmp_path / "x", prefix="pupil.")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["module.a.b", "a.b"], "1 of 2 tensor names begin with 'module.'"),  # two would be one
        (["v.a", "v._orig_mod.a"], "1 of 2 tensor names below 'v' begin with 'v._orig_mod.'"),
        (["module.a", "n_averaged"], "'n_averaged' does not; add --prefix=module."),
        (["me.visual.conv1.weight"], "1 of 1 tensor names begin with 'me.'; add --prefix=me."),
        (["model.encoder.conv_in.weight", "loss.a"], "'loss.a' does not; add --prefix=model."),
    ],
)
def test_names_of_two_kinds(names, expected):
    with pytest.raises(InputError) as caught:
        canonicalize(names, "x.pt")
    assert expected in str(caught.value) and str(caught.value).startswith("x.pt: ")


@pytest.mark.parametrize(
    "names",
    [
        ["model.encoder.conv_in.weight", "model.decoder.decoder.conv_in.weight"],
        ["visual_encoder.model.conv1.weight", "logit_scale"],
        ["model.other.weight", "model.other.bias"],  # no kind that is known: not ours to name
        ["x.module", "module"],  # parameters of that name
    ],
)
def test_own_first_components_stay(names):
    assert list(canonicalize(names, "x").names.values()) == names


def test_a_name_of_a_million_components():
    deep = ".".join(["a"] * 10**6)
    assert canonicalize([deep, "b"], "x").names[deep] == deep


def state(**more):
    return {"a.weight": tensor(), "b": tensor(shape=(2,)), **more}


ADAM = {"state": {0: {"step": tensor(shape=()), "exp_avg": tensor()}}, "param_groups": 3}


@pytest.mark.parametrize(
    ("content", "entry", "left_out"),
    [
        ({"state_dict": state(), "epoch": 3}, "state_dict", ["epoch"]),
        ({"model": state(), "optimizer": ADAM}, "model", ["optimizer"]),
        ({"model_state_dict": state(), "optimizer_state_dict": ADAM, "loss": None},
         "model_state_dict", ["optimizer_state_dict", "loss"]),
        ({"module": state(), "global_steps": 3, "rng": tensor()}, "module",
         ["global_steps", "rng"]),
        ({"epoch": 1, "model": {"state_dict": state(), "arch": "x"}}, "model.state_dict",
         ["epoch", "model.arch"]),
        ({"state_dict": state(), "hyper_parameters": {"model": state()}}, "state_dict",
         ["hyper_parameters"]),
    ],
)  # fmt: skip
def test_containers(tmp_path, content, entry, left_out):
    found = torch_file.open_file(write_archive(tmp_path / "x.pt", content))
    assert list(found.tensors) == ["a.weight", "b"]
    assert (found.entry, list(found.left_out)) == (entry, left_out)


def test_an_ordered_dict_with_metadata(tmp_path):
    items = b"".join(value(k) + value(v) for k, v in state().items())
    ordered = Raw(call("collections", "OrderedDict") + b"(" + items + b"u")
    content = {"model": build(ordered, {"_metadata": {"": {"version": 1}}}), "epoch": 3}
    found = torch_file.open_file(write_archive(tmp_path / "x.pt", content))
    assert list(found.tensors) == ["a.weight", "b"]


def test_of_a_model_and_its_average_none_is_chosen_silently(tmp_path):
    average = {"a.weight": tensor(shape=(1,)), "b": tensor(shape=(1,))}
    path = write_archive(tmp_path / "x.pt", {"model": state(), "model_ema": average, "epoch": 1})
    with pytest.raises(InputError, match="2 state dicts, 'model', 'model_ema'.*--entry=model_ema"):
        torch_file.read(path)
    for entry, size in (("model", 4), ("model_ema", 1)):
        weights = open_weights(path, selection=Selection(entry))
        assert weights.tensors["a.weight"].size == size
        assert weights.entry == entry and "epoch" in weights.left_out
        assert {"model": "model_ema", "model_ema": "model"}[entry] in weights.left_out
    with pytest.raises(InputError, match="has no state dict 'ema'; it holds 'model', 'model_ema'"):
        open_weights(path, selection=Selection("ema"))


def test_the_average_of_a_wrapped_model_converts(tmp_path, goldens, capsys):
    folder, names = renamed(
        goldens, tmp_path / "in", "ruclip", lambda n: f"module.{n}", under="model_ema"
    )
    assert main(["ruclip", str(folder), str(tmp_path / "ours"), "--entry=model_ema"]) == 0
    out = capsys.readouterr().out
    assert "(entry 'model_ema'; 62 names without 'module.')" in out
    assert report_of(tmp_path / "ours")["names"]["entry"] == "model_ema"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"model": state(c=3), "epoch": 1}, "entry 'c' of 'model' is a int, not a tensor"),
        ({"model": state(c=3), "ema": state()}, "holds 2 state dicts, 'ema', 'model'"),
        (state(epoch=3), "entry 'epoch' is a int, not a tensor"),
        ({"mine": state()}, "its only state dict is the entry 'mine'"),
        ({"model": state(), "critic": state()}, "2 state dicts, 'critic', 'model'"),
        ({"epoch": 3}, "entry 'epoch' is a int, not a tensor"),
        ({"model": {}}, "entry 'model' is a dict, not a tensor"),
        ((state(),), "holds a tuple"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, expected):
    with pytest.raises(InputError) as caught:
        torch_file.read(write_archive(tmp_path / "x.pt", content))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_entries_are_of_pytorch_s_files_alone(tmp_path):
    safetensors_file.write(tmp_path / "x.safetensors", {"a": np.ones(2)})
    with pytest.raises(InputError, match="a safetensors file has no entries"):
        open_weights(tmp_path / "x.safetensors", selection=Selection("model"))
    root = new("__torch__", "M", {"a": tensor()})
    with pytest.raises(InputError, match="a TorchScript archive has no entries"):
        open_weights(write_archive(tmp_path / "x.pt", root), selection=Selection("model"))
    with pytest.raises(InputError, match="youtokentome has no tensors"):
        convert("youtokentome", tmp_path, tmp_path / "out", prefix="a.")


def test_plain_data_beside_the_weights_is_dropped_and_never_made(tmp_path):
    namespace = Raw(name("argparse", "Namespace") + b")\x81")
    beside = {
        "args": build(namespace, {"lr": 1, "device": call("torch", "device", "cuda")}),
        "dtype": name("torch", "bfloat16"),
        "milestones": call("collections", "Counter", {3: 1}),
        "best": call("numpy.core.multiarray", "scalar", call("numpy", "dtype", "f8", False, True),
                     call("_codecs", "encode", "x", "latin1")),
        "path": call("pathlib", "PosixPath", "a", "b"),
        "meters": Raw(call("collections", "defaultdict", name("__builtin__", "int")) + b"(u"),
    }  # fmt: skip
    found = torch_file.open_file(write_archive(tmp_path / "x.pt", {"model": state(), **beside}))
    assert list(found.left_out) == list(beside)
    # Not where a tensor is expected, and other classes not at all.
    with pytest.raises(InputError, match="entry 'c' is a OpaqueObject, not a tensor"):
        torch_file.read(write_archive(tmp_path / "y.pt", state(c=namespace)))
    hostile = {"model": state(), "cfg": new("omegaconf.dictconfig", "DictConfig", {})}
    with pytest.raises(InputError, match=r"omegaconf.*is refused.*weights_only=False.*alone"):
        torch_file.read(write_archive(tmp_path / "z.pt", hostile))


def test_entries_without_end_are_refused(tmp_path):
    doubling = Raw(value({"x": 1}) + b"q\x00")
    for i in range(40):
        again = {f"{j}": Raw(b"h" + bytes([i])) for j in range(8)}
        doubling = Raw(value({"first": doubling, **again}) + b"q" + bytes([i + 1]))
    with pytest.raises(InputError, match="nest without end"):
        torch_file.read(write_archive(tmp_path / "x.pt", {"extra": doubling, "b": 3}))
