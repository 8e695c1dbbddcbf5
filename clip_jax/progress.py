"""Progress bars: on a terminal as text, in a notebook as widgets if it has ipywidgets."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # That ipywidgets are missing is no fault of the caller's: there is no bar then. In notebooks
    # tqdm.auto warns besides that it is an experiment.
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm

HAS_WIDGETS = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


def progress_bar(total: int | None, unit: str, *, quiet: bool) -> tqdm:
    """Returns a bar that is removed at its end.

    total: None: unknown. unit: what is counted, in the plural.
    quiet: show none; without a terminal or widgets there is none anyway.
    """
    # None: none without a terminal, which a notebook's streams are not.
    disable = True if quiet else (False if HAS_WIDGETS else None)
    return tqdm(total=total, unit=f" {unit}", disable=disable, leave=False)
