"""What a run begins from: frozen plain data."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class InitConfig:
    """folder: a model folder, converted or trained; "" begins with fresh parameters.

    leave: patterns of the parameters that keep their fresh values, such as
    "text/(token_embedding|layers/.*)". In a name a layer has its number.
    """

    folder: str = ""
    leave: tuple[str, ...] = ()
