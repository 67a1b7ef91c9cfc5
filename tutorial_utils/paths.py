"""Where the package keeps what it makes (models, engines, datasets) and finds what it ships (recordings)."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from tutorial_utils.errors import CacheError

CACHE_VARIABLE = "TUTORIAL_UTILS_CACHE"


def cache_dir(*parts: str) -> Path:
    """Return a folder for generated files, created if it is missing.

    Args:
        parts: Sub-folders, for example ``"engines"``.

    Returns:
        ``$TUTORIAL_UTILS_CACHE`` or, where that is unset, the user's cache folder of the platform, with ``parts`` below.

    Raises:
        CacheError: The folder can't be created or written to.
    """
    root = os.environ.get(CACHE_VARIABLE)
    folder = Path(root or user_cache_path("tutorial_utils")).joinpath(*parts).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise CacheError(
            f"The cache folder {folder} can't be written to.",
            f"Give yourself write access, or set {CACHE_VARIABLE} to a folder that you can write to.",
        )
    return folder
