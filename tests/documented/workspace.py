"""Lays out small files and folders under the names that the pages give them."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

GOLDENS = Path(__file__).parents[1] / "goldens"
COUNT = 20  # of images
PIECES: dict[str, Callable[["Workspace", Path], None]] = {}


def piece(*names: str):
    """Registers how a file or folder is made at a path; other names of it get a copy."""

    def register(make):
        PIECES.update(dict.fromkeys(names, make))
        return make

    return register


class Workspace:
    """Makes each piece once, in `store`, and lays copies of it out.

    byte_vocabulary, small_config: the fixtures of these names.
    """

    def __init__(self, store: Path, byte_vocabulary, small_config) -> None:
        self.store, self.byte_vocabulary, self.small_config = store, byte_vocabulary, small_config

    @functools.cache  # noqa: B019
    def _made(self, make) -> Path:
        place = self.store / make.__name__
        make(self, place)
        return place

    def get(self, name: str) -> Path:
        return self._made(PIECES[name])

    def lay_out(self, needs: str, here: Path) -> None:
        """needs: names of pieces; PLACE=PIECE where a page calls a piece otherwise."""
        for need in needs.split():
            place, _, name = need.partition("=")
            source, target = self.get(name or place), here / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy(source, target)
