"""The errors that a user's input can cause."""

import re

# Marks that change the direction of what follows (Unicode's Bidi_Control).
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
# C0 and C1 controls, line and paragraph separators, surrogates of undecodable bytes.
_UNPRINTABLE = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_DIRECTIONS}]")


def one_line(text: str) -> str:
    """Replaces control characters, line breaks, bidirectional marks and surrogates by escapes.

    Names and values from files could otherwise send escape sequences to a terminal.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


class InputError(ValueError):
    """Reports wrong input in one line: what was found, what was expected, what to do.

    Command lines print it without a traceback and exit with status 2. The message is always
    printable (`one_line`).
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(one_line(arg) if isinstance(arg, str) else arg for arg in args))


class PartialResultError(Exception):
    """Reports, in one line that counts them, inputs that bulk work left out.

    Raised after the results of all others are printed or written; a command line prints the line
    and exits with status 7.
    """
