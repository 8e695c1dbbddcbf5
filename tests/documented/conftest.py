"""Makes the helpers of other folders importable: pytest's importlib mode leaves sys.path alone."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "converters"), str(HERE.parent / "experiments")]
