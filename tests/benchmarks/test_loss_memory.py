import pytest

from benchmarks import loss_memory


def test_the_table_shows_the_memory_of_each_form(monkeypatch):
    monkeypatch.setattr(loss_memory, "LOSSES", ("contrastive",))
    lines = loss_memory.memory_table(1024, 16, 64, devices=(1, 8)).splitlines()
    assert lines[0] == "| loss | form | 1 x 1,024 | 8 x 128 |"
    cells = {line.split(" | ")[1]: line.strip(" |").split(" | ")[2:] for line in lines[2:]}
    megabytes = {form: [float(cell) for cell in row] for form, row in cells.items()}
    assert set(megabytes) == {"gathered", "tiled", "ring"}
    # float32 logits of 1,024 x 1,024 pairs are 4.2 MB, an eighth of them 0.5 MB.
    assert megabytes["gathered"][0] > 4.2 and megabytes["gathered"][1] > 0.5
    assert megabytes["tiled"][0] == megabytes["ring"][0] < 0.5
    assert megabytes["ring"][1] <= megabytes["tiled"][1] < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch=1001"], "--batch is 1001; expected a positive multiple of 8"),
        (["--tile=0"], "--tile is 0; expected a positive number"),
    ],
)
def test_wrong_sizes_are_named(capsys, options, message):
    assert loss_memory.main(options) == 2
    assert message in capsys.readouterr().err
