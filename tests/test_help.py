"""Each --help prints every option with a description, and the default of each that has one."""

import argparse
import contextlib
import re

import pytest
from cli_commands import COMMANDS, main_of

from clip_jax.cli import LONG_DEFAULT, Parser, shown_default


class Built(BaseException):
    """A command has made its parser."""


@pytest.fixture
def printed(monkeypatch, capsys):
    """Returns what a command prints, without breaks in its lines."""
    monkeypatch.setenv("COLUMNS", "10000")

    def run(command, *arguments):
        with contextlib.suppress(SystemExit):
            assert not main_of(command)(list(arguments))
        return capsys.readouterr().out

    return run


def parser_of(command, monkeypatch):
    """The parser that a command reads its arguments with."""
    made = []

    def stop(self, *_, **__):
        made.append(self)
        raise Built

    with monkeypatch.context() as patch:
        patch.setattr(Parser, "parse_args", stop)
        patch.setattr(Parser, "parse_known_args", stop)
        with contextlib.suppress(Built):
            main_of(command)(["--config=experiments/configs/digits.py"])
    return made[0] if made else None


def levels(parser, *words):
    """The parser and those of its subcommands, with the words that lead to them."""
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from levels(below, *words, name)


def paragraph(text, option):
    """Returns what the help says of an option, up to the next one."""
    found = re.search(rf"^ *\[?(?:-\w, )?{option}\b.*(?:\n(?! *\[?--).+)*", text, re.MULTILINE)
    assert found, option
    return " ".join(found[0].split())


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_shows_its_default(command, printed, monkeypatch):
    parser = parser_of(command, monkeypatch)
    if parser is None:
        assert command == "experiments.train"  # its keys are listed with their defaults
        assert "--config.steps=" in printed(command, "--help")
        return
    for words, level in levels(parser):
        text = printed(command, *words, "--help")
        described = text.partition("\noptions:")[2] or text
        for action in level._actions:
            if action.option_strings and action.default != argparse.SUPPRESS:
                option, default = action.option_strings[0], shown_default(action)
                said = paragraph(described, option)
                # A word may stand for a long list.
                short = len(default) <= LONG_DEFAULT
                assert default in said if short else said.endswith(")"), (words, said)
                assert action.help, (words, option)
