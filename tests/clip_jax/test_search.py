"""Image search: order of results, stored embeddings, files that are left out."""

import json
import os
import sqlite3

import numpy as np
import pytest
from PIL import Image

import clip_jax
import converters
from clip_jax import Compute, InputError, Predictor
from clip_jax.__main__ import main
from clip_jax.embedding_store import FILE_NAME, EmbeddingStore
from clip_jax.model import normalize
from clip_jax.search import build_image_index, list_images


@pytest.fixture(scope="module")
def model(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "ruclip"
    converters.convert("ruclip", goldens / "ruclip", folder)
    return folder


@pytest.fixture(scope="module")
def clip(model):
    return clip_jax.load(model)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rudolph-jax" / FILE_NAME


@pytest.fixture
def photos(tmp_path):
    """Writes six images, two of them the same, in two folders, and files that are none."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / ("deeper" if i % 2 else ".") / f"{i}.png")
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


def test_the_most_similar_first(clip, photos):
    index = build_image_index(clip, photos, batch_size=2)
    names = [path.relative_to(photos).as_posix() for path in index.paths]
    assert names == ["0.png", "2.png", "4.png", "copy.PNG", "deeper/1.png", "deeper/3.png"]
    np.testing.assert_allclose(
        index.latents, Predictor(clip).get_image_latents(index.paths), atol=1e-5
    )
    found = index.search("красный круг", 4)
    text = normalize(clip.encode_text(clip.processor(text="красный круг")["input_ids"]))[0]
    cosines = index.latents @ np.asarray(text)
    # The text is encoded by another program, so the cosines may differ in rounding.
    best = [each.cosine for each in found]
    assert best == pytest.approx(sorted(cosines, reverse=True)[:4], abs=1e-5)
    assert best == pytest.approx([cosines[names.index(
        each.path.relative_to(photos).as_posix())] for each in found], abs=1e-5)  # fmt: skip
    assert len(index.search("лес", 99)) == 6
    assert index.unreadable.keys() == {photos / "broken.jpg"}


def test_image_is_encoded_once_per_model(clip, model, photos, cache, encoded):
    first = build_image_index(clip, photos)
    assert encoded == [5] and cache.exists()  # the copy is not encoded again
    (photos / "0.png").rename(photos / "renamed.png")
    Image.new("RGB", (30, 30), "red").save(photos / "new.png")
    again = build_image_index(clip_jax.load(model), photos)
    assert encoded == [5, 1]
    place = again.paths.index(photos / "renamed.png")
    np.testing.assert_array_equal(again.latents[place], first.latents[0])
    # Another model, or another precision, knows nothing of them.
    other = {**clip.params, "logit_scale": clip.params["logit_scale"] + 1}
    build_image_index(clip_jax.PretrainedClip(clip.config, other), photos)
    build_image_index(clip_jax.load(model, Compute(dtype="bfloat16")), photos)
    assert encoded == [5, 1, 6, 6]


def test_embeddings_finished_before_an_interruption_are_stored(clip, photos, monkeypatch):
    monkeypatch.setattr("clip_jax.search.BATCHES_BETWEEN_WRITES", 1)
    real, calls = Predictor.get_image_latents, []

    def stop_at_two(self, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, images)

    monkeypatch.setattr(Predictor, "get_image_latents", stop_at_two)
    with pytest.raises(KeyboardInterrupt):
        build_image_index(clip, photos, batch_size=3)
    build_image_index(clip, photos, batch_size=3)
    # 0, 2, 4 are there; then come the broken one, the copy of 0, 1 and, after the stop, 3.
    assert calls == [3, 1, 0, 1, 1]


def test_one_damaged_file_of_any_kind_does_not_end_the_search(clip, photos, monkeypatch):
    """A damaged AVIF raised RuntimeError, and a TIFF with a wrong tag type TypeError."""
    for error in (RuntimeError("avif"), TypeError("tag"), MemoryError()):

        def load(self, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("PIL.TiffImagePlugin.TiffImageFile.load", load)
            Image.new("RGB", (8, 8)).save(photos / "bad.tif")
            index = build_image_index(clip, photos)
        assert photos / "bad.tif" in index.unreadable and len(index.paths) == 6


def test_macos_metadata_and_hidden_files_are_ignored(clip, photos):
    (photos / "__MACOSX" / "deeper").mkdir(parents=True)
    (photos / ".thumbnails").mkdir()
    for name in ("__MACOSX/._0.png", "__MACOSX/deeper/a.png", "._0.png", ".thumbnails/b.png"):
        (photos / name).write_bytes(b"\x00\x05\x16\x07")
    index = build_image_index(clip, photos)
    assert index.unreadable.keys() == {photos / "broken.jpg"}
    assert (len(index.paths), index.ignored) == (6, 5)


def test_a_pipe_is_not_waited_for(clip, photos):
    os.mkfifo(photos / "pipe.png")
    assert build_image_index(clip, photos).unreadable[photos / "pipe.png"] == "not a regular file"


def test_embeddings_of_other_preprocessing_are_not_reused(clip, photos, encoded, monkeypatch):
    build_image_index(clip, photos)
    monkeypatch.setattr("clip_jax.search.PREPROCESSING_VERSION", 1)
    build_image_index(clip, photos)
    assert encoded == [5, 5]


def test_store_of_many(tmp_path, rng):
    store = EmbeddingStore(tmp_path / "deep" / "er" / "store")
    rows = {str(i): rng.normal(size=7).astype(np.float32) for i in range(1201)}
    store.put("model", rows)
    store.put("other", {"3": np.zeros(7)})
    store.close()
    store = EmbeddingStore(tmp_path / "deep" / "er" / "store")
    found = store.get("model", [*rows, "absent"])
    assert found.keys() == rows.keys()
    np.testing.assert_array_equal(np.stack([*found.values()]), np.stack([found[k] for k in found]))
    assert all((found[name] == row).all() for name, row in rows.items())


def test_command_line(model, photos, cache, capsys):
    assert main(["search", "лес", str(photos), f"--model={model}", "--count=2"]) == 7
    printed = capsys.readouterr()
    assert f"warning: {photos / 'broken.jpg'}: not a readable image" in printed.err
    assert "7 images: 6 searched, 1 unreadable; 1 other files ignored\n" in printed.err
    assert printed.err.endswith(
        "error: 1 of 7 images could not be read; the results are of the others\n"
    )
    lines = printed.out.splitlines()
    assert len(lines) == 2 and all(line.endswith((".png", ".PNG")) for line in lines)
    before = cache.read_bytes()
    arguments = ["search", "лес", str(photos), f"--model={model}", "--count=2", "--json"]
    (photos / "broken.jpg").unlink()
    assert main([*arguments, "--no-cache"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [f"{row['cosine']:6.3f}  {row['image']}" for row in rows] == lines
    assert cache.read_bytes() == before


def test_wrong_input_is_one_line(model, photos, tmp_path, cache, capsys):
    def error_of(text, folder):
        assert main(["search", text, str(folder), f"--model={model}"]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: ")
        return line

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "absent: not a folder" in error_of("лес", tmp_path / "absent")
    assert "empty: holds no images" in error_of("лес", empty)
    (empty / "a.png").write_bytes(b"")
    assert "none of its 1 images can be read" in error_of("лес", empty)
    assert "the text is empty" in error_of("  ", photos)
    cache.write_bytes(b"something else" * 99)
    assert "embeddings cannot be stored here (file is not a database)" in error_of("лес", photos)
    with pytest.raises(InputError, match="expected one with images"):
        list_images(photos / "0.png")


def test_two_processes_may_write(tmp_path):
    one, two = EmbeddingStore(tmp_path / "store"), EmbeddingStore(tmp_path / "store")
    one.put("model", {"a": np.ones(2)})
    two.put("model", {"b": np.zeros(2)})
    assert set(one.get("model", ["a", "b"])) == {"a", "b"}
    with sqlite3.connect(tmp_path / "store") as held:
        held.execute("INSERT INTO embeddings VALUES ('model', 'c', x'00000000')")
    assert set(two.get("model", ["c"])) == {"c"}


def test_a_damaged_embedding_is_unknown(tmp_path):
    file = tmp_path / "store"
    store = EmbeddingStore(file)
    embedding = np.linspace(0, 1, 8, dtype="f4")
    store.put("model", {"a": embedding, "b": embedding + 1})
    changed = (embedding + 1).tobytes()[:-1] + b"\x00"
    for change in (
        ("UPDATE embeddings SET embedding = ? WHERE picture = 'b'", (changed,)),
        ("UPDATE digests SET digest = x'00' WHERE picture = 'b'", ()),
        # As an earlier version writes.
        ("INSERT OR REPLACE INTO embeddings VALUES ('model', 'b', ?)", (changed,)),
    ):
        store.put("model", {"b": embedding + 1})
        assert list(store.get("model", ["a", "b"])) == ["a", "b"]
        with sqlite3.connect(file) as database:
            database.execute(*change)
        found = store.get("model", ["a", "b"])
        assert list(found) == ["a"]
        np.testing.assert_array_equal(found["a"], embedding)


def test_a_store_of_an_earlier_version_is_read(tmp_path):
    with sqlite3.connect(tmp_path / "store") as database:
        database.execute(
            "CREATE TABLE embeddings "
            "(model TEXT, picture TEXT, embedding BLOB, PRIMARY KEY (model, picture))"
        )
        database.execute("INSERT INTO embeddings VALUES ('model', 'a', ?)", (bytes(16),))
    assert EmbeddingStore(tmp_path / "store").get("model", ["a"])["a"].tolist() == [0] * 4
