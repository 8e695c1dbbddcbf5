"""A set prepared by several machines, each a part, has the bytes of one that one machine made."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from cli_commands import main_of
from prepared_sources import picture

from clip_jax import InputError
from clip_jax.atomic_file import create_file
from experiments.data.code_writer import CodeWriter
from experiments.data.parts import Part
from experiments.data.preparation import prepare, prepare_part
from experiments.data.sources import chunks
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig, write_chunk
from experiments.prepare import _parser
from experiments.workdir.lock import RunLock

TWO = WriteConfig(shard_records=2, validation=0.3)
OPTIONS = ["--shard-records=2", "--validation=0.3", "--workers=1"]


@pytest.fixture
def source(tmp_path):
    """Fifteen images in eight chunks; one cannot be read, one has no caption."""
    folder = tmp_path / "source"
    folder.mkdir()
    lines = ["image,caption"]
    for i in range(15):
        image = picture(i)
        (folder / f"{i}.jpg").write_bytes(image[:40] if i == 4 else image)
        lines.append(f"{i}.jpg,{'' if i == 9 else f'подпись {i}'}")
    (folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def contents(out):
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in out.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def expected(source, tmp_path):
    prepare(SourceConfig(str(source)), tmp_path / "expected", TWO)
    return contents(tmp_path / "expected")


def test_parts_in_any_order(source, tmp_path, expected, capsys):
    prepare_command, out = main_of("experiments.prepare"), tmp_path / "out"
    command = [str(source), str(out), *OPTIONS]
    for number in (2, 0, 1):
        if number != 2:
            assert prepare_command([*command, "--finish"]) == 2
            assert not (out / "dataset_info.json").exists()
        assert prepare_command([*command, f"--part={number}/3"]) == 0
        said = capsys.readouterr()
        assert f"part {number}/3: {3 - (number == 2)} chunks are there; --finish" in said.out
    assert prepare_command([*command, "--finish"]) == 7  # of what was rejected
    assert contents(out) == expected
    # All is done: nothing is written again.
    assert prepare_command([*command, "--part=1/3"]) == 0
    assert "3 chunks are there, 3 of them before" in capsys.readouterr().out
    assert prepare_command([*command, "--finish"]) == 7
    assert contents(out) == expected


def test_missing_parts_are_named(source, tmp_path):
    config, out = SourceConfig(str(source)), tmp_path / "out"
    with pytest.raises(InputError, match="no preparation was begun here; run its parts"):
        prepare(config, out, TWO, finish=True)
    assert not out.exists()
    prepare_part(config, out, Part(1, 4), TWO)
    with pytest.raises(InputError) as caught:
        prepare(config, out, TWO, finish=True)
    assert str(caught.value) == (
        f"{out}: 6 of 8 chunks are missing, of 3 of 4 parts: 0, 2, 3; run these again, --part=0/4"
    )
    with pytest.raises(InputError, match="was begun with shard_records = 2, not 3; go on with"):
        prepare_part(config, out, Part(0, 4), WriteConfig(shard_records=3, validation=0.3))


def test_one_machine_completes_what_parts_began(source, tmp_path, expected):
    config, out = SourceConfig(str(source)), tmp_path / "out"
    prepare_part(config, out, Part(3, 4), TWO)
    prepare(config, out, TWO, workers=2)
    assert contents(out) == expected


def test_a_stopped_part_is_resumed_in_another_number_of_parts(
    source, tmp_path, expected, monkeypatch
):
    config, out, written = SourceConfig(str(source)), tmp_path / "out", []

    def stop(*arguments):
        if arguments[-1] == 4:
            raise KeyboardInterrupt
        return write_chunk(*arguments)

    def note(*arguments):
        written.append(arguments[-1])
        return write_chunk(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(chunks, "write_chunk", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_part(config, out, Part(0, 2), TWO)
    monkeypatch.setattr(chunks, "write_chunk", note)
    for number in range(3):
        prepare_part(config, out, Part(number, 3), TWO)
    assert sorted(written) == [1, 3, 4, 5, 6, 7]  # 0 and 2 were there
    prepare(config, out, TWO, finish=True)
    assert contents(out) == expected


def test_processes_at_once(source, tmp_path, expected):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "experiments.prepare", str(source), str(out), *OPTIONS]
    started = [
        subprocess.Popen([*command, f"--part={number}/2"], stderr=subprocess.PIPE)
        for number in range(2)
    ]
    for process in started:
        assert process.wait(200) == 0, process.stderr.read().decode()
    prepare(SourceConfig(str(source)), out, TWO, finish=True)
    assert contents(out) == expected


def test_a_part_is_written_by_one_process(source, tmp_path):
    config, out = SourceConfig(str(source)), tmp_path / "out"
    prepare_part(config, out, Part(0, 2), TWO)
    with (
        RunLock(out / "unfinished" / "part-1-of-2"),
        pytest.raises(InputError, match="part-1-of-2: in use by"),
    ):
        prepare_part(config, out, Part(1, 2), TWO)


def test_codes(source, tmp_path, small_vqgan_folder, monkeypatch):
    config, codes = SourceConfig(str(source)), {"vqgan": small_vqgan_folder, "image_size": 8}
    prepare(config, tmp_path / "expected", TWO, **codes)
    out = tmp_path / "out"
    prepare_part(config, out, Part(0, 2), TWO, **codes)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CodeWriter, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare_part(config, out, Part(1, 2), TWO, **codes)
    with pytest.raises(InputError, match="4 of 8 chunks are missing, of 1 of 2 parts: 1;"):
        prepare(config, out, TWO, finish=True, **codes)
    prepare_part(config, out, Part(1, 2), TWO, **codes)
    prepare(config, out, TWO, finish=True, **codes)
    assert contents(out) == contents(tmp_path / "expected")


@pytest.mark.parametrize("text", ["", "3", "3/3", "-1/3", "1/0", "a/b", "1/2/3", "١/٣"])
def test_texts_that_name_no_part(text):
    with pytest.raises(InputError, match="expected K/N, K from 0 to N-1"):
        Part.parse(text)
    assert str(Part.parse("2/3")) == "2/3"


def test_one_of_many_creates_a_file(tmp_path):
    """Which is how one machine's request becomes that of all."""
    file, wrote = tmp_path / "request.json", []
    barrier = threading.Barrier(8)

    def create(text):
        barrier.wait()
        if create_file(file, text):
            wrote.append(text)

    threads = [threading.Thread(target=create, args=(str(i) * 1000,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrote) == 1 and file.read_text() == wrote[0]
    assert list(tmp_path.iterdir()) == [file]


def test_the_job_of_the_page():
    """The manifest's pods are all parts of its own number of completions."""
    page = Path(__file__).parents[2] / "docs" / "preparation.md"
    text = page.read_text("utf-8").partition("```yaml\n")[2].partition("```")[0]
    job = yaml.safe_load(text)["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert job["completionMode"] == "Indexed" and job["parallelism"] <= job["completions"]
    assert container["command"] == ["python", "-m", "experiments.prepare"]
    for index in range(job["completions"]):
        arguments = [a.replace("$(JOB_COMPLETION_INDEX)", str(index)) for a in container["args"]]
        part = Part.parse(_parser().parse_args(arguments).part)
        assert part == Part(index, job["completions"])
