"""The error that mrcnn, port and verify raise for input a user can mend."""


class InputError(ValueError):
    """One clear sentence that names the file, key or value at fault and the way out.

    The command line prints it without a traceback and exits with code 2.
    """
