"""Paddle, imported without the remarks that a learner can't act on: every module of the package takes it from here.

Left out are: that the compiler cache for C++ operators is missing, that batch norm tracks its statistics, and warnings
of Paddle's C++ core about its own calls, such as each addition while a model is saved. Errors still come through. Set
GLOG_minloglevel=0 before the import to see everything.
"""

import os
import warnings

warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
os.environ.setdefault("GLOG_minloglevel", "2")

import paddle  # noqa: E402
import paddle.inference  # noqa: E402

__all__ = ["paddle"]
