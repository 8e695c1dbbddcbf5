"""Writes a report as one self-contained HTML file, its images also as PNG files beside it."""

from __future__ import annotations

import base64
import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

from clip_jax.atomic_file import replace_file

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #222; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .35rem .9rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
p.note { color: #555; max-width: 46rem; }
tr:first-child td { font-weight: 600; }
"""


@dataclasses.dataclass(frozen=True)
class Table:
    """rows: cells of text; a cell that starts with a digit is set as a number."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def render(self) -> str:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in self.header)
        body = "".join(
            "<tr>" + "".join(self._cell(cell) for cell in row) + "</tr>" for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cell(self, cell: str) -> str:
        kind = ' class="number"' if cell[:1].isdigit() else ""
        return f"<td{kind}>{html.escape(cell)}</td>"


@dataclasses.dataclass(frozen=True)
class PngImage:
    """name: of the PNG file, without suffix. alt: what it shows, for who cannot see it."""

    name: str
    png: bytes
    alt: str

    def render(self) -> str:
        data = base64.b64encode(self.png).decode("ascii")
        return f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{data}">'


@dataclasses.dataclass(frozen=True)
class Section:
    title: str
    note: str
    content: Table | PngImage


def write_page(folder: Path, title: str, lead: str, sections: Sequence[Section]) -> Path:
    """Writes `report.html` and one PNG for each image into `folder`; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="note">{html.escape(lead)}</p>']
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.note:
            parts.append(f'<p class="note">{html.escape(section.note)}</p>')
        parts.append(section.content.render())
        if isinstance(section.content, PngImage):
            replace_file(folder / f"{section.content.name}.png", section.content.png)
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    replace_file(folder / "report.html", page.encode("utf-8"))
    return folder / "report.html"
