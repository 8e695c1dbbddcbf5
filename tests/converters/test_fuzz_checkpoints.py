"""Single-byte damage in checkpoints of every kind: one line that refuses it, or a right result.

Right means, by where the byte is:
- in a tensor's own bytes: that parameter alone differs, in value, not in shape;
- elsewhere in a file of weights, or JSON that parses to what it was: nothing differs at all;
- in a config, an index or a vocabulary that is still valid: parameters have the same bytes.

All 2,000 are read and their parameters made; one in 25 is also converted from end to end, for a
folder on disk takes longer than all the rest.
"""

import dataclasses
import json
import resource
import shutil
import time
import zipfile
from collections.abc import Mapping

import numpy as np
import pytest
from foreign import hf_folder

from clip_jax import InputError, model_folder
from converters import KINDS, api, convert, export, rules, torch_file, torch_writer

WHOLE = 25  # one in so many is converted from end to end
SECONDS, MEGABYTES = 30, 700  # of one change, beyond what is used before; a config is traced once
# name -> kind, how many changes
CASES = {
    "ruclip": ("ruclip", 250),
    "wrapped": ("ruclip", 150),
    "ruclip-small": ("ruclip-small", 200),
    "openai-clip": ("openai-clip", 250),
    "openai-clip-plain": ("openai-clip", 150),
    "hf-clip": ("hf-clip", 250),
    "hf-clip-sharded": ("hf-clip", 150),
    "hf-clip-bin": ("hf-clip", 100),
    "rudolph": ("rudolph", 150),
    "rudalle": ("rudalle", 100),
    "vqgan": ("vqgan", 50),
    "youtokentome": ("youtokentome", 200),
    "real_esrgan_x4": ("real-esrgan", 50),
}
SMALL = 0.12  # the part of changes in small files: a changed size is traced again, which is slow


def make(name, folder, goldens, small_config):
    def copied(golden):
        shutil.copytree(goldens / golden, folder, ignore=lambda *_: DATA)

    if name == "wrapped":
        copied("ruclip")
        file = folder / "pytorch_model.bin"
        tensors = {f"module.{n}": np.array(t) for n, t in torch_file.read(file).items()}
        torch_writer.write(file, tensors, under="model")
    elif name == "openai-clip-plain":
        convert("openai-clip", goldens / "openai_clip_vit", folder.with_name("ours"))
        export(folder.with_name("ours"), folder)
    elif name.startswith("hf-clip"):
        layouts = {"hf-clip": "safetensors", "hf-clip-sharded": "safetensors-sharded"}
        hf_folder(folder, small_config, layouts.get(name, "bin-sharded"))
    else:
        special = {"openai-clip": "openai_clip_vit", "rudolph": "rudolph_plain",
                   "rudalle": "rudalle_v3", "youtokentome": "tokenizer"}  # fmt: skip
        copied(special.get(name, name.replace("-", "_")))
    if name == "openai-clip":
        (folder / "config.json").unlink()  # of the recording, which no converter reads
    return folder


DATA = {"outputs.npz", "case.json", "cases.json", "emoji_names.json",
        *(f"image{i}.png" for i in range(5))}  # fmt: skip


def tensor_spans(file):
    """[begin, end) of the bytes of tensors in a file of weights; none of another file."""
    content = file.read_bytes()
    if file.suffix == ".safetensors":
        return [(8 + int.from_bytes(content[:8], "little"), len(content))]
    return record_spans(file, "/data/") if content.startswith(b"PK") else []


def record_spans(file, part):
    """[begin, end) of the bytes of the records in a zip file whose names have this part."""
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if part in info.filename]
    spans = []
    for info in infos:
        local = info.header_offset
        lengths = (content[local + 26 : local + 28], content[local + 28 : local + 30])
        begin = local + 30 + sum(int.from_bytes(length, "little") for length in lengths)
        spans.append((begin, begin + info.file_size))
    return spans


def tree_equal(a, b):
    return set(a) == set(b) and all(same(a[name], b[name]) for name in a)


def same(a, b):
    return a.shape == b.shape and a.tobytes() == b.tobytes()


@dataclasses.dataclass
class Outcome:
    config: Mapping
    params: dict
    files: Mapping


def outcome(kind, folder):
    """Return what a conversion would write."""
    source = KINDS[kind].read(folder)
    params, flat = {}, {}
    if source.weights is not None:
        mappings = rules.resolve_rules(source.rules, source.shapes)
        params, _ = rules.convert(
            mappings,
            source.derived,
            source.settings,
            source.weights,
            "float32",
            source.config_source,
        )
    flatten(params, "", flat)
    return Outcome(json.loads(json.dumps(source.config)), flat, dict(source.files))


def flatten(tree, prefix, into):
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flatten(value, f"{prefix}{name}/", into)
        else:
            into[prefix + name] = np.asarray(value)


def damaged(rng, files, spans):
    """(file, place, byte): a change that is more often in structure than in numbers."""
    weights = [file for file in files if spans[file]]
    small = [file for file in files if not spans[file]]
    pool = small if small and (not weights or rng.random() < SMALL) else weights
    file = pool[rng.integers(len(pool))]
    content = file.read_bytes()
    place = rng.integers(len(content))
    if content.startswith(b"PK") and rng.random() < 0.4:
        begin, end = record_spans(file, "/data.pkl")[0]
        place = rng.integers(begin, end)
    elif spans[file] and rng.random() < 0.75:
        outside = np.ones(len(content), bool)
        for begin, end in spans[file]:
            outside[begin:end] = False
        place = rng.choice(np.flatnonzero(outside))
    change = 1 << rng.integers(8) if rng.random() < 0.5 else rng.integers(1, 256)
    return file, int(place), content[place] ^ int(change)


def check_right(found, whole, file, place, spans, before, after):
    in_tensor = any(begin <= place < end for begin, end in spans)
    if in_tensor:
        assert (found.config, found.files) == (whole.config, whole.files)
        assert {n: p.shape for n, p in found.params.items()} == {
            n: p.shape for n, p in whole.params.items()
        }
        differing = [n for n, p in found.params.items() if not same(p, whole.params[n])]
        assert len(differing) <= 1, differing
        return
    unchanged = bool(spans)
    if file.suffix == ".json":
        unchanged = json.loads(before) == json.loads(after)
    if unchanged:
        assert (found.config, found.files) == (whole.config, whole.files)
        assert tree_equal(found.params, whole.params)
    assert set(found.params) == set(whole.params)
    for name, param in found.params.items():
        assert param.tobytes() == whole.params[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_changed_byte_is_refused_or_harmless(tmp_path, goldens, small_config, name):
    kind, count = CASES[name]
    folder = make(name, tmp_path / "in", goldens, small_config)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    spans = {file: tensor_spans(file) for file in files}
    whole = outcome(kind, folder)
    rng = np.random.default_rng(list(CASES).index(name))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for case in range(count):
        file, place, byte = damaged(rng, files, spans)
        before = file.read_bytes()
        after = before[:place] + bytes([byte]) + before[place + 1 :]
        # Another file, not the same bytes changed: the old one is mapped still.
        file.unlink()
        file.write_bytes(after)
        told = f"{name}, change {case}: {file.name}, byte {place} is {byte}, was {before[place]}"
        start = time.monotonic()
        try:
            found = outcome(kind, folder)
        except InputError as error:
            assert "\n" not in str(error), told
            found, refused = None, refused + 1
        except Exception as error:  # whatever else escapes is the fault that is looked for
            raise AssertionError(f"{told}: {type(error).__name__}: {error}") from error
        if found is not None:
            try:
                check_right(found, whole, file, place, spans[file], before, after)
            except AssertionError as error:
                raise AssertionError(f"{told}: {error}") from error
        assert time.monotonic() - start < SECONDS, told
        if case % WHOLE == 0:
            check_whole(kind, folder, tmp_path / "out", found, told)
        file.unlink()
        file.write_bytes(before)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < MEGABYTES, f"{name}: {grown:.0f} MB"
    assert refused > count // 5, refused  # the changes do reach what is checked


def check_whole(kind, folder, out, found, told):
    """The conversion itself: a folder with just these parameters, or nothing."""
    out.mkdir(exist_ok=True)
    try:
        api.convert(kind, folder, out / "model")
    except InputError:
        assert found is None and list(out.iterdir()) == [], told
        return
    assert found is not None and [path.name for path in out.iterdir()] == ["model"], told
    if found.params:
        written = {}
        flatten(model_folder.read_params(out / "model"), "", written)
        assert tree_equal(written, found.params), told
    shutil.rmtree(out / "model")
