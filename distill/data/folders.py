"""Where data lies, and that nothing read from a data set leads out of it."""

import os
from pathlib import Path


def find_folder(folder: str) -> Path:
    """The existing folder that the setting names.

    An absolute folder (or one that starts with ~) is taken as it is. A relative one is looked up under $DISTILL_DATA,
    then ./data, then ../shared/data; it may be a link, but has no `..` in it.

    Raises:
        ValueError: no such folder; all places tried are named. Or the relative folder has a `..`.
    """
    try:
        path = Path(folder).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"Data folder {folder!r} begins with a home that is not known. Give an absolute folder."
        ) from error
    if ".." in path.parts:
        raise ValueError(
            f"Data folder {folder!r} leads out of the data's place by '..'. Give an absolute folder instead."
        )
    if path.is_absolute():
        if not _is_folder(path):
            raise ValueError(f"There is no data folder {_shown(path)}. Check data.folder.")
        return path
    set_place = os.environ.get("DISTILL_DATA")
    places = ([Path(set_place).expanduser()] if set_place else []) + [Path("data"), Path("../shared/data")]
    for place in places:
        if _is_folder(place / path):
            return place / path
    tried = ("" if set_place else "$DISTILL_DATA (not set), ") + ", ".join(str(place / path) for place in places)
    raise ValueError(
        f"There is no data folder {folder!r}. Tried {tried}. Put the data there, set DISTILL_DATA to what "
        f"holds {folder!r}, or give data.folder as an absolute path."
    )


def inside(root: Path, path: Path) -> Path:
    """The path as it is, after making sure that it, with its links followed, stays in the data set's folder `root`.

    Raises:
        ValueError: it leads out, by `..`, by an absolute name or by a link; or no file can be there, since the name is
            too long or a link leads to itself.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{_shown(path)} can't be read: {reason}. Put the file itself there.") from error
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{_shown(path)} leads out of its data folder {root}. Put the file itself there instead of a link to it."
        )
    return path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, or a link to itself
        return False


def _shown(path: Path) -> str:
    """The path as it is, or in quotation marks and cut where it would spoil a line."""
    text = str(path)
    return text if text.isprintable() and len(text) <= 250 else repr(text if len(text) <= 250 else f"{text[:80]}...")
