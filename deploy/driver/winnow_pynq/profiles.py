# SPDX-License-Identifier: Apache-2.0
"""Networks for one engine that were made together: a folder each, and profiles.json.

profiles.json has the SHA-256 of every memory.json, and that of itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .bundle import description, read_checked
from .errors import MismatchError

FILE, FORMAT = "profiles.json", 1


def profile_folders(folder: Any) -> dict[str, Path]:
    """Return the folders of a folder's profiles by name; a bundle is the one profile of itself.

    Raises NotFoundError or MismatchError for a file that is missing, damaged or of another build.
    """
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file() and (folder / "memory.json").is_file():
        return {str(description(folder / "memory.json").get("name", folder.name)): folder}
    content = description(path, FORMAT)
    try:
        hashes = {str(name): profile["sha256"] for name, profile in content["profiles"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise MismatchError(f"'{path}' lacks something ({error}); copy it again") from error
    if not hashes:
        raise MismatchError(f"'{path}' has no profiles; copy it again")
    for name, sha256 in hashes.items():
        read_checked(folder / name / "memory.json", str(sha256))
    return {name: folder / name for name in hashes}
