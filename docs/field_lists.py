"""Docstrings to pages: `name: what it is` at the head of a line becomes an item of a list.

An extension of griffe for mkdocs.yml. The docstrings stay what a reader of the code wants to see.
"""

from __future__ import annotations

import re

import griffe

FIELD = re.compile(r"(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?P<rest>\S.*)")


class FieldLists(griffe.Extension):
    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring:
            obj.docstring.value = listed(obj.docstring.value)


def listed(docstring: str) -> str:
    """The same text with its fields as a Markdown list; indented code stays as it is."""
    out: list[str] = []
    in_list = False
    for line in docstring.splitlines():
        field = FIELD.fullmatch(line)
        if field:
            if not in_list:
                out.append("")
            names = ", ".join(f"`{name}`" for name in field["names"].split(", "))
            out.append(f"- {names}: {field['rest']}")
            in_list = True
        elif in_list and line.strip() and line.startswith("    "):
            out.append(line)
        elif in_list and line.strip():
            # A sentence after the fields begins its own paragraph.
            out.append(f"    {line}" if out[-1][-1] not in ".:;)" else f"\n{line}")
            in_list = out[-1].startswith("    ")
        else:
            out.append(line)
            in_list = False
    return "\n".join(out)
