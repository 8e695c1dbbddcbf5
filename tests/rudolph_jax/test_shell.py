"""python -m rudolph_jax ..., on a saved tiny model."""

import dataclasses
import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

import rudolph_jax
from rudolph_jax import cli_commands
from rudolph_jax.__main__ import main
from rudolph_jax.png_files import contact_sheet


@pytest.fixture
def shell(folders, capsys):
    def run(*arguments, status=0, model="rudolph", vqgan=True):
        given = [f"--model={folders / model}"]
        given += [f"--vqgan={folders / 'vqgan'}"] if vqgan else []
        assert main([str(a) for a in (*arguments, *given)]) == status
        return capsys.readouterr()

    return run


def test_draw_writes_pictures_that_say_what_made_them(shell, tmp_path):
    out = tmp_path / "круги"
    printed = shell("draw", "лес", f"--out={out}", "--count=3", "--candidates=5", "--seed=4",
                    "--json").out  # fmt: skip
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["file"] for row in rows] == [str(out / f"0{i}.png") for i in (1, 2, 3)]
    assert [row["score"] for row in rows] == sorted(row["score"] for row in rows)
    with Image.open(out / "01.png") as picture:
        assert picture.size == (24, 24)
        assert picture.text["prompt"] == "лес" and picture.text["seed"] == "4"
        assert float(picture.text["score"]) == rows[0]["score"]
    assert (out / "sheet.png").exists()
    again = tmp_path / "again"
    shell("draw", "лес", f"--out={again}", "--count=3", "--candidates=5", "--seed=4", "--json")
    assert (again / "02.png").read_bytes() == (out / "02.png").read_bytes()


def test_draw_keeps_borders_and_takes_guidance(shell, folders, tmp_path):
    out = tmp_path / "out"
    printed = shell(
        "draw", "лес", f"--out={out}", "--count=1", "--candidates=2", "--guidance=0.2",
        f"--image={folders / 'red.png'}", "--keep=up=2",
    ).out  # fmt: skip
    assert str(out / "sheet.png") in printed
    model = rudolph_jax.load(folders / "rudolph", folders / "vqgan")
    assert len(model.encode_images([out / "01.png"])[0]) == 9


def test_caption_classify_write_and_answer(shell, folders):
    red = folders / "red.png"
    few = ("--candidates=4", "--json")
    printed = shell("caption", red, "--template=лес", *few).out
    rows = [json.loads(line) for line in printed.splitlines()]
    assert rows and all(row["text"].startswith("лес") for row in rows)
    (row,) = map(json.loads, shell("classify", red, "--classes=лес,дом", "--json").out.splitlines())
    assert row["class"] == min(row["scores"], key=row["scores"].get)
    assert shell("classify", red, "--classes=лес,дом").out == f"{red}: {row['class']}\n"
    rows = [json.loads(line) for line in shell("write", "лес", *few).out.splitlines()]
    assert rows and all(row["text"].startswith("лес") for row in rows)
    rows = [json.loads(line) for line in shell("answer", "кто это?", *few).out.splitlines()]
    assert all(set(row) == {"text", "count"} for row in rows)


def test_one_bad_file_of_many_is_listed_and_the_rest_go_on(shell, folders, tmp_path):
    red, bad = folders / "red.png", tmp_path / "bad.png"
    bad.write_bytes(red.read_bytes()[:-40])
    for command in (("classify", "--classes=лес,дом"), ("caption", "--candidates=2")):
        printed = shell(command[0], bad, red, *command[1:], status=7)
        assert f"warning: {bad}: not a readable image" in printed.err
        assert "error: 1 of 2 images could not be read" in printed.err
        assert all(line.startswith(f"{red}: ") for line in printed.out.splitlines())
        printed = shell(command[0], bad, red, *command[1:], "--json", status=7).out
        failed, *rows = map(json.loads, printed.splitlines())
        assert failed["image"] == str(bad) and failed["error"].startswith("not a readable image")
        assert rows and {row["image"] for row in rows} == {str(red)}
    printed = shell("classify", bad, bad, "--classes=лес,дом", status=2)
    assert "none of the 2 images can be read" in printed.err
    printed = shell("classify", bad, "--classes=лес,дом", status=2)
    assert f"error: {bad}: not a readable image" in printed.err


def test_labels_are_unicode_in_one_form(shell, folders):
    red = folders / "red.png"
    nfc = "йод"
    nfd = unicodedata.normalize("NFD", nfc)
    one, other = (
        json.loads(shell("classify", red, f"--classes={name},дом", "--json").out)
        for name in (nfc, nfd)
    )
    assert one == other and nfc in one["scores"]
    assert "names 'йод' twice" in shell("classify", red, f"--classes={nfc},{nfd}", status=2).err
    hidden = shell("classify", red, "--classes=ко\u00adшка,дом").err
    assert hidden.startswith("warning: ") and "U+00AD SOFT HYPHEN" in hidden
    undecodable = os.fsdecode("кот".encode("cp1251"))
    for arguments in (
        ("draw", undecodable), ("write", undecodable), ("answer", undecodable),
        ("classify", red, f"--classes={undecodable},дом"),
        ("caption", red, f"--template={undecodable}"),
    ):  # fmt: skip
        assert "\\udcea\\udcee\\udcf2" in shell(*arguments, status=2).err


def test_write_only_some_characters(shell):
    printed = shell("write", "--characters=ес", "--candidates=4", "--count=4", "--json").out
    texts = [json.loads(line)["text"] for line in printed.splitlines()]
    assert all(set(text) <= set("ес ") for text in texts)


def test_what_does_not_fit_is_told(shell):
    printed = shell("write", "очень длинный текст о лесе и реке", "--candidates=1")
    assert "warning: the text is longer than the 8 tokens of the left segment" in printed.err


@pytest.fixture(scope="module")
def x4(golden_folder):
    return golden_folder("real_esrgan_x4", "real-esrgan")


def test_draw_enlarges(shell, x4, tmp_path):
    few = ("--count=2", "--candidates=2", "--seed=4", "--json")
    shell("draw", "лес", f"--out={tmp_path / 'small'}", *few)
    for extra in ((), ("--upscale=4",)):
        out = tmp_path / f"large{len(extra)}"
        printed = shell("draw", "лес", f"--out={out}", f"--upscaler={x4}", *extra, *few).out
        rows = [json.loads(line) for line in printed.splitlines()]
        assert [row["upscale"] for row in rows] == [4, 4]
        (expected,) = rudolph_jax.load_upscaler(x4).upscale([tmp_path / "small/02.png"])
        with Image.open(out / "02.png") as picture:
            assert picture.size == (96, 96) and picture.text["upscale"] == "4"
            difference = np.asarray(picture, int) - np.asarray(expected, int)
        assert np.abs(difference).max() <= 1


def enlarge(capsys, *arguments, status=0):
    assert main(["upscale", *map(str, arguments)]) == status
    return capsys.readouterr()


def test_upscale_writes_each_image_under_its_name(capsys, folders, x4, tmp_path, rng):
    wide = Image.fromarray(rng.integers(0, 256, (20, 70), dtype=np.uint8))  # grey
    wide.save(tmp_path / "широкая.jpg")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"x")
    red, out = folders / "red.png", tmp_path / "out"
    given = (tmp_path / "широкая.jpg", bad, red, f"--model={x4}")
    printed = enlarge(capsys, *given, f"--out={out}", "--tile=32", "--overlap=8", status=7)
    assert printed.out.splitlines() == [
        f"{out / 'широкая.png'}  70x20 -> 280x80", f"{out / 'red.png'}  30x30 -> 120x120",
    ]  # fmt: skip
    assert f"warning: {bad}: not a readable image" in printed.err
    assert "error: 1 of 3 images could not be read" in printed.err
    assert sorted(path.name for path in out.iterdir()) == ["red.png", "широкая.png"]
    (expected,) = rudolph_jax.load_upscaler(x4).upscale([given[0]], tile=32, overlap=8)
    with Image.open(out / "широкая.png") as picture:
        assert np.abs(np.asarray(picture, int) - np.asarray(expected, int)).max() <= 1
    printed = enlarge(capsys, bad, red, f"--model={x4}", f"--out={tmp_path / 'b'}", "--json",
                      status=7).out  # fmt: skip
    done, failed = map(json.loads, printed.splitlines())
    assert done == {
        "image": str(red), "file": str(tmp_path / "b/red.png"), "width": 120, "height": 120,
        "from_width": 30, "from_height": 30,
    }  # fmt: skip
    assert failed["image"] == str(bad) and failed["error"].startswith("not a readable image")


def test_upscale_refuses_what_does_not_fit(capsys, shell, folders, x4, tmp_path):
    red, out = folders / "red.png", tmp_path / "out"
    bad, other = tmp_path / "bad.png", tmp_path / "RED.jpg"
    bad.write_bytes(b"x")
    Image.new("RGB", (4, 4)).save(other)
    before = sorted(tmp_path.iterdir())
    for arguments, message in (
        ((bad, "--model={x4}"), f"{bad}: not a readable image"),
        ((bad, tmp_path / "no.png", "--model={x4}"), "none of the 2 images can be read"),
        ((red, other, "--model={x4}"), "would both become RED.png"),
        ((red, f"--model={folders / 'vqgan'}"), "of kind 'vqgan'; expected 'upscaler'"),
        ((red, "--model={x4}", "--tile=8"), "tile is 8; expected"),
        ((red, "--model={x4}", "--overlap=-1"), "'-1' is not a number of pixels"),
    ):
        given = [str(a).replace("{x4}", str(x4)) for a in arguments]
        error = enlarge(capsys, *given, f"--out={out}", status=2).err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1
        assert sorted(tmp_path.iterdir()) == before
    for arguments, message in (
        (("--upscale=4",), "--upscale needs a super-resolution network: --upscaler=FOLDER"),
        ((f"--upscaler={x4}", "--upscale=2"), f"--upscale is 2; {x4} enlarges 4 times"),
        ((f"--upscaler={folders / 'vqgan'}",), "of kind 'vqgan'; expected 'upscaler'"),
    ):
        assert message in shell("draw", "лес", f"--out={out}", *arguments, status=2).err
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("draw", "лес", "--temperature=-1"), "temperature is -1.0; expected 0"),
        (("draw", "лес", "--image=nowhere.png", "--keep=up=1"), "nowhere.png: no such image"),
        (("draw", "лес", "--keep=up=1"), "give the image with --image=FILE"),
        (("draw", "лес", "--image={red}"), "--keep names no border"),
        (("draw", "лес", "--image={red}", "--keep=top=1"), "expected such as up=4,left=2"),
        (("caption", "nowhere.png"), "nowhere.png: no such image"),
        (("classify", "{red}", "--classes=лес"), "expected at least two names"),
        (("classify", "{red}", "--classes=a,b", "--template=x"), "expected {} where"),
        (("write", "--characters=ѣ"), "the vocabulary has no piece of them"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(shell, folders, tmp_path, arguments, message):
    arguments = [a.replace("{red}", str(folders / "red.png")) for a in arguments]
    if arguments[0] == "draw":
        arguments += [f"--out={tmp_path / 'out'}", "--candidates=1", "--count=1"]
    error = shell(*arguments, status=2).err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_models_that_do_not_fit(shell, folders, tmp_path):
    assert "no image tokenizer was given" in shell("caption", "x.png", status=2, vqgan=False).err
    assert "can only draw" in shell("answer", "что?", status=2, model="rudalle").err
    assert "holds a model of kind 'vqgan'" in shell("write", status=2, model="vqgan").err
    small = rudolph_jax.load_vqgan(folders / "vqgan")
    other = dataclasses.replace(small.config, codebook_size=18)
    with pytest.raises(rudolph_jax.InputError, match="has 18 codes, the model's image_vocab_size"):
        rudolph_jax.load(folders / "rudolph", rudolph_jax.PretrainedVqgan(other, small.params))


def test_an_existing_folder_is_not_touched(shell, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    error = shell("draw", "лес", f"--out={tmp_path}", status=2).err
    assert "already exists" in error
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_help_has_russian_examples(capsys):
    for arguments in (["--help"], ["draw", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert 'draw "красный круг"' in capsys.readouterr().out


def test_contact_sheet():
    pictures = [Image.new("RGB", (16, 8), color) for color in ("red", "green", "blue")]
    sheet = contact_sheet(pictures, columns=2)
    zoom = 16  # to 128 pixels of the smaller side
    assert sheet.size == (8 + 2 * (16 * zoom + 8), 8 + 2 * (8 * zoom + 8))
    assert sheet.getpixel((10, 10)) == (255, 0, 0)
    assert sheet.getpixel((8 + 16 * zoom + 10, 10)) == (0, 128, 0)
    assert sheet.getpixel((0, 0)) == (255, 255, 255)


def test_every_command_has_its_function():
    for name in ("draw", "caption", "classify", "write", "answer"):
        assert callable(getattr(cli_commands, name))
