"""PyTorch's files are zip archives that are not packed; one that is could fill the memory, and is refused unread."""

import struct
import zipfile
from pathlib import Path


def check_archive(path: Path) -> None:
    """Refuse an archive that would unpack to more bytes than its file has, before PyTorch reads it.

    PyTorch writes none, but unpacks what it is given: a file of 2 MB that fills 12 GB. A file that is no archive
    passes; PyTorch compares what such a file claims with what it holds.

    Raises:
        ValueError: it is packed or damaged, or its entries overlap.
    """
    entries: list[zipfile.ZipInfo] = []
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        whole = sum(entry.file_size for entry in entries) <= path.stat().st_size
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error):  # all of damaged bytes
        whole = False
    if not whole or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(
            f"{path} is damaged, or a packed archive. Write it again with torch.save, which packs nothing."
        )
