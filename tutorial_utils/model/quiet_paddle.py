"""Paddle, imported without the remarks that a learner can't act on: every module of the package takes it from here.

Left out are: that the compiler cache for C++ operators is missing, that batch norm tracks its statistics, and warnings
of Paddle's C++ core about its own calls, such as each addition while a model is saved. Errors still come through. Set
GLOG_minloglevel=0 before the import to see everything.

Python's root logger stays as it was: Paddle would let it print what any library logs, such as that matplotlib has
listed the fonts.
"""

import logging
import os
import warnings

from tutorial_utils.base.errors import BackendUnavailableError

warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
os.environ.setdefault("GLOG_minloglevel", "2")
_root = logging.getLogger()
_level, _handlers = _root.level, [*_root.handlers]

try:
    import paddle
    import paddle.inference
except OSError as error:  # its libraries are missing, or it can't make its folders in the home
    if error.filename is None:
        raise
    raise BackendUnavailableError(
        f"Paddle can't be imported: {error.strerror} ({error.filename}).",
        "Paddle makes folders in the home: set HOME to a folder that you can write to, as `make` does.",
    ) from error

_root.setLevel(_level)
_root.handlers[:] = _handlers

__all__ = ["paddle"]
