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
    path = Path(folder).expanduser()
    if ".." in path.parts:
        raise ValueError(
            f"Data folder {folder!r} leads out of the data's place by '..'. Give an absolute folder instead."
        )
    if path.is_absolute():
        if not path.is_dir():
            raise ValueError(f"There is no data folder {folder}. Check data.folder.")
        return path
    set_place = os.environ.get("DISTILL_DATA")
    places = ([Path(set_place).expanduser()] if set_place else []) + [Path("data"), Path("../shared/data")]
    for place in places:
        if (place / path).is_dir():
            return place / path
    tried = ("" if set_place else "$DISTILL_DATA (not set), ") + ", ".join(str(place / path) for place in places)
    raise ValueError(
        f"There is no data folder {folder!r}. Tried {tried}. Put the data there, set DISTILL_DATA to what "
        f"holds {folder!r}, or give data.folder as an absolute path."
    )


def inside(root: Path, path: Path) -> Path:
    """The path as it is, after making sure that it, with its links followed, stays in the data set's folder `root`.

    Raises:
        ValueError: it leads out, by `..`, by an absolute name or by a link.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{path} leads out of its data folder {root}. Put the file itself there instead of a link to it."
        )
    return path
