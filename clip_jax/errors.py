"""The errors that a user's input can cause."""


class InputError(ValueError):
    """Wrong input, found at the edge: one line with what was found, what was expected, what to do.

    Command lines print it without a trace and exit with status 2.
    """


class PartialResultError(Exception):
    """Bulk work is done, but some of its inputs were left out; one line that counts them.

    Raised after the results of all others are printed or written: a command line prints the line
    and exits with status 7.
    """
