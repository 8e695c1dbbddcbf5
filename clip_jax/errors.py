"""The one error that a user's input can cause."""


class InputError(ValueError):
    """Wrong input, found at the edge: one line with what was found, what was expected, what to do.

    Command lines print it without a trace and exit with status 2.
    """
