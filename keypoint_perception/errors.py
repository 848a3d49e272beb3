"""The one exception that a user is meant to read, and the words of others in it."""


class UserError(Exception):
    """Bad input from outside: a file, a parameter, a message, a command line.

    The message is one line that says what was given, what is allowed and what to do. Commands print it and exit
    with status 2; the node logs it and lives on. Anything else that is raised is a bug of ours.
    """


def first_line(error: Exception) -> str:
    """What an exception of others says, without what they add below it; its type's name where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
