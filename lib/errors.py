"""The error that a user of the bundle can cause: one line that names the parameter, the value, the remedy."""


class InputError(ValueError):
    """A parameter, file or data set given by the user is not usable; the message is one line."""


def one_line(error, length=200):
    """The kind and the message of any exception in one line, for the message of an :class:`InputError`."""
    return f"{type(error).__name__}, {' '.join(str(error).split())[:length]}"
