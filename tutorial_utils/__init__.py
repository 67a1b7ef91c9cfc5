"""Support package of the course: the straight way from a dataset to a TensorRT engine and an honest measurement.

Its rooms hand their results to the next::

    model -> engine -> runners -> measure

Heavy libraries (Paddle, TensorRT, ONNX Runtime, PyCUDA) are imported by the module that uses them, so that importing
this package is quick and works where one of them is missing.
"""

import os

# ONNX Runtime sends usage data from 1.32 on, unless this is set before it is imported. Child processes inherit it. A
# reader's own setting stays.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
