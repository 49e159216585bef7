"""What error messages share: the nearest right name, and another library's error, told apart or in one line."""

import difflib
from collections.abc import Iterable

import torch


def nearest(name: str, names: Iterable[str]) -> str:
    """The few names most like `name`; 'none' where there is nothing to choose from."""
    known = list(names)
    return ", ".join(difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:3]) or "none"


def first_line(error: Exception) -> str:
    """What an error of a library says, on one line and without its full stop."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch says that a device's or the machine's memory did not suffice."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def one_line(error: Exception) -> str:
    """What an error says, on one line: of one that a data loader's worker met, what was raised there.

    torch raises such an error anew with the worker's traceback as its message, which ends in "package.Error: message".
    """
    text = str(error)
    if "Original Traceback" in text:
        text = text.strip().splitlines()[-1].partition(": ")[2]
    # A name from outside may hold what moves the cursor or turns the text around.
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in " ".join(text.split()))
