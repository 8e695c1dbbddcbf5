"""Tables on a terminal; pipes and files get the lines that scripts read."""

import io

import pytest

from clip_jax.terminal_table import print_markdown, print_table

ROWS = [("data", "ok", "1,797 images"), ("free [disk]", "error", "/слишком/мало/" + "места" * 12)]
HEADS = "check", "verdict", "found"
PLAIN = "data  ok  1,797 images\nfree  error"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


def show(stream):
    print_table(PLAIN, HEADS, ROWS, title="checks", styles={"error": "red"}, stream=stream)
    return stream.getvalue()


def test_a_pipe_gets_the_plain_lines(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert show(io.StringIO()) == PLAIN + "\n"
    stream = io.StringIO()
    print_markdown("| a |\n|---|", stream)
    assert stream.getvalue() == "| a |\n|---|\n"


def test_a_terminal_gets_a_table_of_its_width_with_all_of_each_cell(terminal):
    found = show(terminal)
    assert "\x1b[31merror" in found and "━" in found and "free [disk]" in found
    lines = found.replace("\x1b[31m", "").replace("\x1b[0m", "").splitlines()
    assert 40 < max(len(line) for line in lines if "\x1b" not in line) <= 60
    folded = "".join(line.split("│")[-2].strip() for line in lines if line.count("│") > 2)
    assert ROWS[1][2] in folded.replace(" ", "")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_without_colours_or_without_lines(terminal, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    found = show(terminal)
    assert "\x1b[31m" not in found
    assert (found == PLAIN + "\n") == (name == "TERM")


def test_numbers_are_on_the_right_and_bad_names_escaped(terminal):
    print_table("", ("name", "share"), [("a\udcff", "5.0"), ("b", "12.5 %")], stream=terminal)
    found = terminal.getvalue()
    assert "│    5.0 │" in found and "a\\udcff" in found


def test_markdown_on_a_terminal(terminal):
    print_markdown("| variant | loss |\n|---|---|\n| base | 0.5 |\n\nMean.\n", terminal)
    found = terminal.getvalue()
    assert "|---" not in found and "base" in found and "Mean." in found
