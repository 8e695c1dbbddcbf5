"""Indexes of images: what is encoded, found, left out, resumed, exported."""

import fcntl
import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import clip_jax
import converters
from clip_jax import InputError, Predictor
from clip_jax.__main__ import main
from clip_jax.index import build_index, export_index, open_index, query_vector
from clip_jax.index.build import LOCK_NAME


@pytest.fixture(scope="module")
def model(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ruclip"
    converters.convert("ruclip", goldens / "ruclip", folder)
    return folder


@pytest.fixture(scope="module")
def clip(model):
    return clip_jax.load(model)


def _save(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20 + seed, 30, 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    """Writes five images and a copy of one, a damaged file, and a file of another kind."""
    folder = tmp_path / "photos"
    for seed in range(5):
        _save(folder / ("deeper" if seed % 2 else ".") / f"{seed}.png", seed)
    (folder / "copy.PNG").write_bytes((folder / "0.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture
def encoded(monkeypatch):
    """Counts the images of each call of the encoder."""
    counts, real = [], Predictor.get_image_latents

    def note(self, images):
        counts.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Predictor, "get_image_latents", note)
    return counts


def _build(clip, source, folder):
    return build_index(clip, source, folder, batch_size=2, quiet=True)


def test_finds_what_the_model_finds(clip, photos, tmp_path):
    report = _build(clip, photos, tmp_path / "index")
    assert (report.images, report.encoded, report.reused) == (7, 5, 1)
    assert (report.unreadable, report.ignored) == (1, 1)
    index = open_index(tmp_path / "index")
    vector = query_vector(clip, ["красный круг"])
    found = index.search(vector, 3)
    names = ["0.png", "2.png", "4.png", "deeper/1.png", "deeper/3.png"]
    cosines = Predictor(clip).get_image_latents([photos / name for name in names]) @ vector
    best = np.argsort(-cosines)[:3]
    assert [match.key for match in found] == [names[i] for i in best]
    assert [match.cosine for match in found] == pytest.approx(cosines[best], abs=1e-3)
    assert index.duplicates() == [["0.png", "copy.PNG"]]
    assert list(index.unreadable()) == ["broken.jpg"] and index.recall == 1
    assert len(index.search(vector, 99)) == 5


def test_only_new_and_changed_images_are_encoded(clip, photos, tmp_path, encoded):
    folder = tmp_path / "index"
    _build(clip, photos, folder)
    encoded.clear()
    assert _build(clip, photos, folder).unchanged == 6 and sum(encoded) == 0
    _save(photos / "2.png", 9)
    (photos / "4.png").rename(photos / "renamed.png")
    (photos / "deeper" / "1.png").unlink()
    report = _build(clip, photos, folder)
    assert (report.encoded, report.reused, report.removed) == (1, 1, 2) and sum(encoded) == 1
    index = open_index(folder)
    new = Predictor(clip).get_image_latents([photos / "2.png"])[0]
    match = index.search(new, 1)[0]
    assert match.key == "2.png" and match.cosine == pytest.approx(1, abs=1e-3)
    keys = {match.key for match in index.search(new, 99)}
    assert keys == {"0.png", "2.png", "deeper/3.png", "renamed.png"}


def test_a_change_that_keeps_size_and_time_needs_compare_content(clip, photos, tmp_path):
    import os

    folder, file = tmp_path / "index", photos / "2.bmp"
    Image.new("RGB", (8, 8), "red").save(file)
    _build(clip, photos, folder)
    status = file.stat()
    Image.new("RGB", (8, 8), "blue").save(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert _build(clip, photos, folder).encoded == 0
    report = build_index(clip, photos, folder, compare_content=True, quiet=True)
    assert (report.encoded, report.unchanged) == (1, 6)


def test_unused_rows_are_removed_when_they_are_many(clip, photos, tmp_path):
    folder = tmp_path / "index"
    _build(clip, photos, folder)
    for name in ("0.png", "copy.PNG", "2.png"):
        (photos / name).unlink()
    _build(clip, photos, folder)
    index = open_index(folder)
    assert index.embeddings.shape[0] == 3 and len(list(folder.glob("*.f16"))) == 1
    for key in ("4.png", "deeper/1.png", "deeper/3.png"):
        own = Predictor(clip).get_image_latents([photos / key])[0]
        assert index.search(own, 1)[0].key == key


def test_an_interrupted_index_goes_on(clip, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("clip_jax.index.build.BATCHES_PER_COMMIT", 1)
    monkeypatch.setattr("jax.local_devices", lambda: [None])
    real, calls = Predictor.get_image_latents, []

    def stop_at_three(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(Predictor, "get_image_latents", stop_at_three)
    folder = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        _build(clip, photos, folder)
    done = sum(calls[:2])
    report = _build(clip, photos, folder)
    assert done > 0 and report.encoded == 5 - done
    index = open_index(folder)
    own = Predictor(clip).get_image_latents([photos / "deeper/3.png"])[0]
    assert index.search(own, 1)[0].key == "deeper/3.png"


def test_one_writer_at_a_time(clip, photos, tmp_path):
    folder = tmp_path / "index"
    _build(clip, photos, folder)
    with (folder / LOCK_NAME).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is writing this index"):
            _build(clip, photos, folder)
        assert len(open_index(folder).search(query_vector(clip, ["лес"]), 9)) == 5


def test_another_model_needs_another_folder(clip, photos, tmp_path):
    folder = tmp_path / "index"
    _build(clip, photos, folder)
    other = clip_jax.PretrainedClip(
        clip.config, {**clip.params, "logit_scale": clip.params["logit_scale"] + 1}
    )
    with pytest.raises(InputError, match="was made with model .* expected the same model"):
        _build(other, photos, folder)
    with pytest.raises(InputError, match="was made with another model"):
        open_index(folder).check_model(other)


def test_tar_files_are_read_in_place(clip, photos, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, names in enumerate((["0.png", "2.png", "broken.jpg"], ["4.png", "notes.txt"])):
        with tarfile.open(shards / f"{number}.tar", "w") as archive:
            for name in names:
                archive.add(photos / name, name)
    report = _build(clip, shards, tmp_path / "index")
    assert (report.images, report.encoded, report.unreadable, report.ignored) == (4, 3, 1, 1)
    index = open_index(tmp_path / "index")
    own = Predictor(clip).get_image_latents([photos / "4.png"])[0]
    match = index.search(own, 1)[0]
    assert match.key == "1.tar/4.png"
    assert index.read(match.entries[0]) == (photos / "4.png").read_bytes()
    (shards / "1.tar").write_bytes(b"cut short")
    with pytest.raises(InputError, match=r"1\.tar: is no complete uncompressed tar file"):
        _build(clip, shards, tmp_path / "index")


def test_texts_are_added_and_subtracted(clip, photos):
    plain = [query_vector(clip, [text]) for text in ("кошка", "трава", "собака")]
    total = plain[0] + plain[1] - plain[2]
    np.testing.assert_allclose(
        query_vector(clip, ["кошка", "трава"], minus=["собака"]),
        total / np.linalg.norm(total), atol=1e-5,
    )  # fmt: skip
    own = Predictor(clip).get_image_latents([photos / "0.png"])[0]
    np.testing.assert_allclose(query_vector(clip, images=[photos / "0.png"]), own, atol=1e-5)
    with pytest.raises(InputError, match="nothing to look for"):
        query_vector(clip, minus=["собака"])
    with pytest.raises(InputError, match="cancel out"):
        query_vector(clip, ["кошка"], minus=["кошка"])


@pytest.mark.parametrize("form", ["parquet", "clip-retrieval"])
def test_exports_hold_every_image_with_its_embedding(clip, photos, tmp_path, form, monkeypatch):
    monkeypatch.setattr("clip_jax.index.export.ROWS_PER_FILE", 4)
    _build(clip, photos, tmp_path / "index")
    index = open_index(tmp_path / "index")
    out = tmp_path / "out"
    assert export_index(index, out, form) == 6
    if form == "parquet":
        table = pq.read_table(out)
        keys, rows = table["key"].to_pylist(), np.array(table["embedding"].to_pylist())
    else:
        keys = pq.read_table(out / "metadata")["image_path"].to_pylist()
        rows = np.concatenate([np.load(out / "img_emb" / f"img_emb_{i}.npy") for i in range(2)])
    assert keys == ["0.png", "2.png", "4.png", "copy.PNG", "deeper/1.png", "deeper/3.png"]
    own = Predictor(clip).get_image_latents([photos / key for key in keys])
    np.testing.assert_allclose(rows, own, atol=1e-3)
    with pytest.raises(InputError, match="is not empty"):
        export_index(index, out, form)


def test_commands(model, photos, tmp_path, capsys):
    assert main(["index", str(photos), f"--model={model}", "--duplicates"]) == 7
    out, err = capsys.readouterr()
    assert out == "0.png\tcopy.PNG\n"
    assert "7 images: 5 encoded, 1 with bytes that are known, 0 unchanged, 1 unreadable" in err
    index = f"{photos}.index"
    page = tmp_path / "page.html"
    arguments = [index, f"--model={model}", "--json", f"--html={page}"]
    assert main(["search", "", *arguments, f"--image={photos / '0.png'}", "--count=2"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["image"] == "0.png" and first["copies"] == ["copy.PNG"]
    assert first["cosine"] == pytest.approx(1, abs=1e-3)
    assert page.read_text(encoding="utf-8").count("<img ") == 2
    assert main(["search", "кошка", *arguments, "--minus=собака", "--text=трава"]) == 0
    assert main(["export", index, str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "part-00000.parquet").exists()


def test_names_need_not_be_utf_8(clip, photos, tmp_path):
    _save(photos / "\udcff.png", 7)
    _build(clip, photos, tmp_path / "index")
    index = open_index(tmp_path / "index")
    own = Predictor(clip).get_image_latents([photos / "\udcff.png"])[0]
    assert index.search(own, 1)[0].key == "\udcff.png"
    assert _build(clip, photos, tmp_path / "index").unchanged == 7
    assert export_index(index, tmp_path / "out", "parquet") == 7


def test_an_unknown_form_is_refused(clip, photos, tmp_path):
    _build(clip, photos, tmp_path / "index")
    with pytest.raises(InputError, match="'csv'.*parquet, clip-retrieval"):
        export_index(open_index(tmp_path / "index"), tmp_path / "out", "csv")


def test_prepared_sets_are_indexed_by_split_and_number(clip, photos, tmp_path):
    from experiments.data.preparation import prepare
    from experiments.data.preparation_request import SourceConfig, WriteConfig

    captioned = tmp_path / "captioned"
    captioned.mkdir()
    for seed in range(6):
        _save(captioned / f"{seed}.png", seed)
    rows = "".join(f"{seed}.png,номер {seed}\n" for seed in range(6))
    (captioned / "list.csv").write_text(f"image,caption\n{rows}", "utf-8")
    prepare(SourceConfig(str(captioned)), tmp_path / "set", WriteConfig())
    report = _build(clip, tmp_path / "set", tmp_path / "index")
    assert (report.images, report.encoded) == (6, 6)
    index = open_index(tmp_path / "index")
    own = Predictor(clip).get_image_latents([captioned / "3.png"])[0]
    match = index.search(own, 1)[0]
    assert match.key.startswith("train/") and match.cosine == pytest.approx(1, abs=1e-3)
    assert index.read(match.entries[0]) == (captioned / "3.png").read_bytes()
