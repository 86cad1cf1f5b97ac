"""An export as one zip file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

from kdnas_core.export.sums import check_sums, files_of


def write_zip(folder: Path, out: Path | IO[bytes]) -> None:
    """Writes the files of an export as a zip, with the folder's name as its top folder.

    Raises:
        Failure: a file is not what was checked.
    """
    check_sums(folder)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # weights do not compress
        for name in files_of(folder):
            archive.write(folder / name, f"{folder.name}/{name}")
