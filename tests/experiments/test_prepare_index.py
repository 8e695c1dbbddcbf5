"""A prepared set whose images stay in the tars: the same rows, and no silent change of a tar."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from clip_jax import InputError
from experiments.data.parts import Part
from experiments.data.preparation import prepare, prepare_part
from experiments.data.source import Split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.prepare import main

KINDS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP"}


def _image(i, kind):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, KINDS[kind])
    return buffer.getvalue()


def _write_tar(file, images):
    """images: by name, bytes; each with a caption."""
    with tarfile.open(file, "w") as tar:
        for name, data in images.items():
            stem = name.rpartition(".")[0]
            for member, content in ((name, data), (f"{stem}.txt", f"подпись {stem}".encode())):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    images = {}
    for number in range(3):
        of_tar = {}
        for i in range(4):
            kind = list(KINDS)[i]
            of_tar[f"{number}{i}.{kind}"] = images[f"{number}{i}"] = _image(4 * number + i, kind)
        of_tar[f"{number}x.jpg"] = b"no image"
        _write_tar(folder / f"часть-{number}.tar", of_tar)
    return folder, images


def _rows(folder, split="train"):
    opened = Split(folder, split)
    return {row["key"]: row for row in map(opened.__getitem__, range(len(opened)))}


def test_rows_are_those_of_a_copy_and_images_the_bytes_of_the_tar(source, tmp_path):
    folder, images = source
    config = SourceConfig(str(folder))
    found = prepare(config, tmp_path / "index", WriteConfig(validation=0.4, index_only=True))
    copied = prepare(config, tmp_path / "copy", WriteConfig(validation=0.4))
    assert (found.splits, found.counts, found.reasons) == (
        copied.splits, copied.counts, copied.reasons
    )  # fmt: skip
    assert found.counts.rejected == 6 and sum(found.splits.values()) == 12
    for split in found.splits:
        rows, whole = _rows(tmp_path / "index", split), _rows(tmp_path / "copy", split)
        assert list(rows) == list(whole)  # the same order: batches and resumed runs are the same
        for key, row in rows.items():
            assert set(row) == {"key", "captions", "image"}
            stem = key.rpartition("/")[2]
            assert row["captions"] == whole[key]["captions"] == [f"подпись {stem}"]
            assert row["image"] == images[stem]
            pixels = [
                np.asarray(Image.open(io.BytesIO(each["image"]))) for each in (row, whole[key])
            ]
            np.testing.assert_array_equal(*pixels)
    assert set(Split(tmp_path / "index", "train").features) == {"key", "captions", "image"}
    stored = sum(f.stat().st_size for f in (tmp_path / "index").glob("*array_record*"))
    assert b"JFIF" not in b"".join(
        f.read_bytes() for f in (tmp_path / "index").glob("*array_record*")
    )
    assert stored


def test_parts_and_a_resumed_preparation_write_the_same(source, tmp_path):
    config, how = SourceConfig(str(source[0])), WriteConfig(index_only=True)
    prepare(config, tmp_path / "whole", how)
    for number in (1, 0):
        prepare_part(config, tmp_path / "parts", Part(number, 2), how)
    prepare(config, tmp_path / "parts", how, finish=True)
    names = [f.name for f in (tmp_path / "whole").glob("*array_record*")]
    assert names
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    with pytest.raises(InputError, match="index_only = True, not False"):
        prepare(config, tmp_path / "whole")


@pytest.mark.parametrize(
    "change, message",
    [
        ("bytes", "часть-1.tar: bytes .* are not the image that was indexed there; the tar has"),
        ("cut", "часть-1.tar: bytes .* are not the image"),
        ("gone", "часть-1.tar: cannot be read: No such file"),
    ],
)
def test_a_tar_that_changed_is_an_error_where_it_is_read(change, message, source, tmp_path):
    folder, _ = source
    prepare(SourceConfig(str(folder)), tmp_path / "out", WriteConfig(index_only=True))
    tar = folder / "часть-1.tar"
    data = bytearray(tar.read_bytes())
    if change == "gone":
        tar.unlink()
    else:
        data[data.index(b"\xff\xd8") + 200] ^= 1
        tar.write_bytes(data if change == "bytes" else data[:600])
    opened = Split(tmp_path / "out", "train")
    good = bad = 0
    for i in range(len(opened)):
        try:
            opened[i]
            good += 1
        except InputError as error:
            bad += 1
            with pytest.raises(InputError, match=message):
                raise error
    assert bad == (1 if change == "bytes" else 4) and good + bad == 12


def test_tars_that_are_elsewhere_are_named_when_the_set_is_opened(source, tmp_path):
    folder, _ = source
    prepare(SourceConfig(str(folder)), tmp_path / "out", WriteConfig(index_only=True))
    folder.rename(tmp_path / "moved")
    with pytest.raises(InputError, match="tars: no such folder; a set prepared with --index-only"):
        Split(tmp_path / "out", "train")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--max-side=4"], "--index-only and --max-side exclude each other"),
        (["--vqgan=x", "--image-size=8"], "--index-only and --vqgan exclude each other"),
        (["--form=questions"], "--index-only is given, and --form=questions has no images"),
    ],
)
def test_what_needs_copies_is_refused(options, message, source, tmp_path, capsys):
    line = [str(source[0]), str(tmp_path / "out"), "--index-only", *options]
    assert main(line) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_sources_have_no_tars(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(_image(0, "jpg"))
    (tmp_path / "table.jsonl").write_text(json.dumps({"image": "a.jpg", "caption": "кот"}))
    assert main([str(tmp_path), str(tmp_path / "out"), "--index-only"]) == 2
    assert "--index-only is of tars, and these are records of kind 'pictures'" in (
        capsys.readouterr().err
    )


def test_a_single_tar_and_the_command(source, tmp_path, capsys):
    folder, images = source
    line = [str(folder / "часть-2.tar"), str(tmp_path / "out"), "--index-only"]
    assert main([*line, "--max-rejected=0.5"]) == 0
    rows = _rows(tmp_path / "out")
    assert {key.rpartition("/")[2]: row["image"] for key, row in rows.items()} == {
        stem: data for stem, data in images.items() if stem.startswith("2")
    }
    assert (tmp_path / "out" / "preview.html").read_text().count("<img") == 4
