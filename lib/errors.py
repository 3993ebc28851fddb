"""The error that a user of the bundle can cause: one line that names the parameter, the value, the remedy."""


class InputError(ValueError):
    """A parameter, file or data set given by the user is not usable; the message is one line."""
