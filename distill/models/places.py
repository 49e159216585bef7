"""Files and folders that a user names."""

from pathlib import Path


def place_of(name: str) -> Path:
    """The path, with ~ as the user's home; nothing need be there.

    Raises:
        ValueError: no file can be there, since the name is too long, a link leads to itself or the home is not known.
    """
    try:
        path = Path(name).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise ValueError(f"{name[:80]!r} can't be read: {reason}. Check the path.") from error
    return path
