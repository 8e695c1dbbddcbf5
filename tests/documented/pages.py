"""Finds the shell commands that the pages print: in fenced and indented blocks, and inline."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

PROGRAMS = (
    r"(?:\S*/)?python3?|pip|make|pytest|git|gcloud|srun|sbatch|hf|jupyter|tensorboard|docker|"
    r"docs/launch/[a-z_]+|kubectl|pipx|sky|xpk|export|\.ci/run|\. |for |\$[A-Z]\b"
)
# A program and what follows, behind variables for it; or a variable that the next lines use.
COMMAND = re.compile(
    rf"(?:[A-Z][A-Z0-9_]+=\S+ +)*(?:{PROGRAMS})(?:\s|(?<=\s)|(?<=run)|$)"
    r"|\w+=(?:\"[^\"]*\"|\$\(.*\))$"
)
SETTING = re.compile(r"[A-Z][A-Z0-9_]+=\S+$")  # alone, in a sentence


@dataclass(frozen=True)
class Command:
    """text: as printed, without its comment, continuation lines joined, single spaces."""

    page: str
    line: int
    text: str


def commands(page: Path) -> list[Command]:
    """The commands of a page in their order."""
    return commands_of(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())


def commands_of(text: str, name: str = "") -> list[Command]:
    code, prose = _split(text)
    found = [
        Command(name, line, normalized)
        for line, command in _logical_lines(code)
        if COMMAND.match(normalized := _normalize(command))
    ]
    for match in re.finditer(r"(?<!`)`([^`]+)`(?!`)", prose):
        inline = _normalize(match[1])
        # "tensorboard/" and "git" alone are names of things.
        whole = COMMAND.match(inline) and (" " in inline or "/" in inline.strip("/"))
        whole = whole and not re.match(r"[a-z]\w*=", inline)
        if whole or SETTING.fullmatch(inline):
            found.append(Command(name, prose.count("\n", 0, match.start()) + 1, inline))
    return sorted(found, key=lambda command: command.line)


def _split(text: str) -> tuple[list[tuple[int, str]], str]:
    """Numbered lines of shell blocks, and the page with all code blocks blank."""
    code, prose, fence = [], [], None
    for number, line in enumerate(text.splitlines(), 1):
        opens = re.match(r"\s*```(\w*)", line)
        if opens or fence is not None:
            if opens:
                fence = opens[1] if fence is None else None
            elif fence in ("", "bash", "sh", "shell", "console"):
                code.append((number, line.removeprefix("$ ")))
            prose.append("")
        elif re.match(r"(?: {4}|\t)\S", line) or (code and re.match(r" {5}", line)):
            code.append((number, line.strip()))
            prose.append("")
        else:
            prose.append(line)
    return code, "\n".join(prose)


def _logical_lines(code: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Joins lines that end in a backslash, open quotes, and `for` with its `done`."""
    found: list[tuple[int, str]] = []
    open_line = False
    for number, line in code:
        if open_line:
            first, before = found[-1]
            found[-1] = first, f"{before.removesuffix(chr(92))} {line.strip()}"
        else:
            found.append((number, line.strip()))
        whole = found[-1][1]
        loop = whole.startswith("for ") and not re.search(r"\bdone\b", whole)
        open_line = whole.endswith("\\") or loop
    return found


def _normalize(command: str) -> str:
    """Without the comment at its end; every run of white space is one space."""
    quote = ""
    for i, letter in enumerate(command):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (i == 0 or command[i - 1].isspace()):
            command = command[:i]
            break
    return " ".join(command.split())
