"""Rows of tables: a lone quote mark swallows none, a cell too many or too few cuts none."""

import csv
import io
import json
import time
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prepared_sources import picture, prepared

from clip_jax import InputError
from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.records import BadRecord
from experiments.data.sources.tables import MOST_LINES, QuotesWarning, table_rows


@pytest.fixture
def read(tmp_path):
    """name, contents -> ({row: its caption, or whole if it has none}, {row: why}, blank rows)."""

    def read(name, contents, image_column="image"):
        table = tmp_path / name
        table.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        good, bad, blank = {}, {}, []
        for row in table_rows(table, image_column):
            if row.value is None:
                blank.append(row.number)
            elif isinstance(row.value, BadRecord):
                bad[row.number] = str(row.value)
            else:
                good[row.number] = row.value.get("caption", row.value)
        return good, bad, blank

    return read


def test_a_lone_quote_in_a_tsv_is_a_letter(read):
    good, bad, _ = read(
        "a.tsv", 'image\tcaption\na.png\t"Красный круг\nb.png\tСиний\nc.png\tдиск 5" и "да"\n'
    )
    assert good == {2: '"Красный круг', 3: "Синий", 4: 'диск 5" и "да"'} and not bad


def test_a_tsv_that_is_consistent_with_quotes_has_them(read):
    good, bad, _ = read("a.tsv", 'image\tcaption\na.png\t"Он: ""да"""\nb.png\tс\nc.png\t"д\nе"\n')
    assert good == {2: 'Он: "да"', 3: "с", 4: "д\nе"} and not bad


@pytest.mark.parametrize(
    "rows", ['a.png\t"да"\nb.png\t"да" нет', 'a.png\t"да"\nb.png\tт"т', 'a.png\t"да\nb.png\tнет"']
)
def test_a_tsv_that_is_not_consistent_with_quotes_has_none(read, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuotesWarning)
        good, bad, _ = read("a.tsv", f"image\tcaption\n{rows}\n")
    assert list(good.values()) == [row.split("\t")[1] for row in rows.split("\n")] and not bad


def test_a_tsv_whose_quotes_break_says_where(read):
    rows = "".join(f'{i}.png\t"слово {i}"\n' for i in range(4))
    with pytest.warns(QuotesWarning, match="in line 6 text follows a closing quote mark, so quote"):
        good, _, _ = read("a.tsv", f'image\tcaption\n{rows}5.png\t"да" нет\n')
    assert good[3] == '"слово 1"'
    with pytest.raises(InputError, match="header has quotes, and in line 2 a quote mark is never"):
        read("a.tsv", '"image"\t"caption"\na.png\t"да\n')


def test_a_lone_quote_in_a_csv_loses_its_row_alone(read):
    good, bad, _ = read(
        "a.csv", 'image,caption\na.png,"Красный круг\nb.png,Синий\nc.png,"Зел, ""ый"""\nd.png,5"\n'
    )
    assert good == {3: "Синий", 4: 'Зел, "ый"', 5: '5"'}
    assert list(bad) == [2]
    assert bad[2].startswith("a quote mark is never closed: put the text into quotes and double")
    good, bad, _ = read("a.csv", 'image,caption\na.png,"да", нет\nb.png,"да" нет\nc.png,нет\n')
    assert good == {4: "нет"}
    assert bad[2].startswith("row has 3 cells; the header has 2")
    assert bad[3].startswith("text follows a closing quote mark")


def test_lines_that_could_be_rows_are_never_joined(read):
    """The quote of row 2 closes in row 5, with as many cells as the header."""
    rows = 'a.png,"Красный\nb.png,Синий\n\nслово\nd.png,Зелёный"\ne.png,да\n'
    good, bad, blank = read("a.csv", f"image,caption\n{rows}")
    assert good == {7: "да"} and list(bad) == [2, 3, 4, 5, 6] and not blank
    assert set(bad.values()) == {
        "a quoted text over several lines has lines that could be rows: close the quote mark, or "
        "write the text on one line"
    }


def test_texts_over_several_lines_keep_the_numbers_of_a_spreadsheet(read, tmp_path):
    rows = 'a.png,"один, два\r\nтри, четыре\r\n\r\n""пять"""\r\nb.png,да\r\n\r\nc.png\r\n'
    good, bad, blank = read("a.csv", f"\ufeffimage,caption\r\n{rows}")
    assert good == {2: 'один, два\r\nтри, четыре\r\n\r\n"пять"', 3: "да"}
    assert blank == [4] and list(bad) == [5]
    assert [row.line for row in table_rows(tmp_path / "a.csv", "image")] == [2, 6, 7, 8]


def test_surplus_and_missing_cells_are_rejected(read):
    for name, between, advice in (
        ("a.csv", ",", "put a text with commas into quotes"),
        ("a.tsv", "\t", "a text must have no tabs and no ends of lines"),
    ):
        rows = [["image", "caption"], ["a.png", "Красный", "круг"], ["b.png"], ["c.png", "да"]]
        rows += [["d.png", "нет", ""]]
        good, bad, _ = read(name, "\n".join(between.join(row) for row in rows))
        assert good == {4: "да"}
        assert bad == {
            row: f"row has {count} cells; the header has 2: {advice}"
            for row, count in ((2, 3), (3, 1), (5, 3))
        }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_ends_of_lines_and_byte_order_marks(read, end, mark):
    for name, between in (("a.csv", ","), ("a.tsv", "\t")):
        rows = [f"image{between}caption", f"a.png{between}да", "", f"b.png{between}нет\u2028ой"]
        assert read(name, mark + end.join(rows)) == ({2: "да", 4: "нет\u2028ой"}, {}, [3])
    rows = ['{"caption": "да"}', '{"caption": 1, "caption": 2}', " ", "[1]"]
    good, bad, blank = read("a.jsonl", mark + end.join(rows))
    assert good == {1: "да"} and blank == [3]
    assert bad == {
        2: "row is not JSON: key 'caption' is there twice", 4: "row is no JSON object"
    }  # fmt: skip


def test_a_lone_carriage_return_cuts_no_caption(read):
    assert read("a.csv", "image,caption\na.png,да\rнет\n") == ({2: "да\rнет"}, {}, [])


def test_headers_that_are_none(read):
    for name, contents, message in (
        ("a.csv", "image;caption\na;b", "one column, 'image;caption', with ';' .* expected commas"),
        ("a.csv", "image\tcaption\na\tb", r"one column, 'image\\tcaption', with '\\t'"),
        ("a.tsv", "image,caption\na,b", "one column, 'image,caption', with ',' .* expected tabs"),
        ("a.csv", "image,caption,image\na,b,c", "two columns are called 'image'"),
        ("a.csv", 'image,"caption\na,b', "header: a quote mark is never closed"),
        ("a.csv", "image,caption\na,b".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("a.jsonl", '{"a": 1}'.encode("utf-32"), "is UTF-32 text; save it as UTF-8"),
        ("a.csv", "image,caption\na,b".encode("utf-16-le"), "line 1 has zero bytes"),
    ):
        with pytest.raises(InputError, match=message):
            read(name, contents)


def test_bytes_that_are_no_text_cost_their_row_alone(read):
    good, bad, _ = read("a.csv", b"image,caption\na.png,a\0b\nb.png,\xff\nc.png,d\n")
    assert bad == {2: "row has a zero byte"} and good == {3: "\udcff", 4: "d"}


@pytest.mark.parametrize("row", ['a.png,"x""\n', 'a.png,"\n', '"a.png,x",y"\n', 'a.png,"\n",x\n'])
def test_hostile_quotes_cost_no_more_than_lines(read, row):
    began = time.monotonic()
    good, bad, _ = read("a.csv", "image,caption\n" + row * 20_000)
    assert time.monotonic() - began < 20
    assert len(good) + len(bad) <= 20_000 * row.count("\n")
    assert all(len(text) < 100 for text in good.values())


def test_a_text_of_too_many_lines_is_rejected(read):
    for count, kept in ((MOST_LINES - 1, 1), (MOST_LINES, 0)):
        text = "слово\n" * count
        good, bad, _ = read("a.csv", f'image,caption\na.png,"{text}"\nb.png,да\n')
        assert len(good) == 1 + kept and list(good.values())[-1] == "да"
        assert bool(bad) != bool(kept)


QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
letters = st.text(st.sampled_from('ab "\'\\,;\t\n\r\u2028ёй.png#'), min_size=1, max_size=12)


@settings(max_examples=300, **QUIET)
@given(
    st.lists(letters, min_size=1, max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_csv_writes_comes_back_whole_or_is_rejected(read, captions, quoting, end):
    opened = io.StringIO(newline="")
    writer = csv.writer(opened, quoting=quoting, lineterminator=end)
    writer.writerows([["image", "caption"], *([f"{i}.png", c] for i, c in enumerate(captions))])
    good, bad, _ = read("a.csv", opened.getvalue())
    # csv writes a last "\r" without quotes, where the line's end takes it; `prepare` strips both.
    found, captions = ([c.rstrip("\r") for c in some] for some in (good.values(), captions))
    assert not set(found) - set(captions)
    assert bad or found == captions
    if not any("png" in caption for caption in captions):
        assert not bad


@settings(max_examples=200, **QUIET)
@given(st.lists(letters, min_size=1, max_size=6), st.booleans())
def test_what_is_written_as_tsv_comes_back_whole_or_is_rejected(read, captions, quoted):
    """By a program that quotes, or as plain lines by one that does not."""
    rows = [["image", "caption"], *([f"{i}.png", c] for i, c in enumerate(captions))]
    opened = io.StringIO(newline="")
    if quoted:
        csv.writer(opened, delimiter="\t", quoting=csv.QUOTE_ALL).writerows(rows)
    else:
        rows = [[cell.translate({9: " ", 10: " ", 13: " "}) for cell in row] for row in rows]
        opened.write("".join("\t".join(row) + "\n" for row in rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuotesWarning)
        try:
            good, bad, _ = read("a.tsv", opened.getvalue())
        except InputError:
            assert quoted  # the header's quotes, and lines that could be rows
            return
    written = [row[1] for row in rows[1:]]
    if not quoted and not any(text.startswith('"') for text in written):
        assert list(good.values()) == written
    if quoted and good:
        assert list(good.values()) == written and not bad


def test_prepare_says_how_to_quote(tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(picture(i))
    text = 'image,caption\n0.jpg,"Красный круг\n1.jpg,Синий, большой\n2.jpg,"Да, нет"\n3.jpg,Да\n'
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    found, lines = prepared(SourceConfig(str(tmp_path)), tmp_path / "out")
    assert {key: captions for key, (_, captions) in found.items()} == {
        "2.jpg": ["Да, нет"], "3.jpg": ["Да"]
    }  # fmt: skip
    assert [(line["row"], line["why"].partition(":")[0]) for line in lines] == [
        (2, "a quote mark is never closed"), (3, "row has 3 cells; the header has 2")
    ]  # fmt: skip
    counts = prepare(SourceConfig(str(tmp_path)), tmp_path / "out").counts
    assert str(counts) == "read 4 rows: 2 kept, 2 rejected, 0 ignored"


def test_surrogates_in_json_cost_their_row_alone(tmp_path):
    (tmp_path / "0.jpg").write_bytes(picture(0))
    rows = [
        {"image": "0.jpg", "caption": ["да", "\ud800"]}, {"image": "\ud800.jpg", "caption": "да"},
        {"image": "\udcff.jpg", "caption": "да"}, {"image": "0.jpg", "caption": []},
        {"image": "a\0b.jpg", "caption": "да"},
    ]  # fmt: skip
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found, lines = prepared(SourceConfig(str(tmp_path)), tmp_path / "out")
    assert found == {"0.jpg": (picture(0), ["да"])}
    assert {line["row"]: line["why"].partition(":")[0] for line in lines} == {
        1: "caption is not UTF-8", 2: "image cannot be read", 3: "image is missing",
        4: "caption is missing", 5: "image cannot be read",
    }  # fmt: skip
    counts = prepare(SourceConfig(str(tmp_path)), tmp_path / "out").counts
    assert (counts.kept, counts.rejected, counts.all) == (1, 4, 5)
