"""Where a transformers model or tokenizer lies, and transformers called so that it says little."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from distill.messages import one_line

T = TypeVar("T")

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_LONGEST = 240


def import_transformers(what: str) -> ModuleType:
    """transformers, for `what`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f"{what} needs transformers. Install it with: pip install 'distill[text]'.") from error
    module: ModuleType = transformers
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' and the hub's progress bars and warnings; both are afterwards as they were."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    verbosity, hub_verbosity, bars = logging.get_verbosity(), hub.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(ERROR)
    hub.set_verbosity(ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def find_place(place: str, what: str) -> str:
    """The place as transformers takes it: an existing folder, or what can be a name of the hub.

    Raises:
        ValueError: it is neither.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        return str(folder)
    if not _HUB_NAME.fullmatch(place):
        raise ValueError(f"There is no folder {place} for {what}, and it is no name of the hub. Check the path.")
    return place


def fetch(place: str, load: Callable[[bool], T]) -> T:
    """What `load(local_files_only)` gives: of a folder and of what was downloaded before, without asking the hub."""
    if Path(place).is_dir():
        return load(True)
    try:
        return load(True)
    except (OSError, ValueError):
        return load(False)


def reason(place: str, error: Exception) -> str:
    """Why transformers could not load from a place, on one line that is not too long, without its full stop."""
    said = one_line(error).rstrip(".") or type(error).__name__
    if "couldn't connect" in said:
        return f"there is no folder {place}, and the hub can't be reached to ask for that name"
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
