"""Support package of the course: the straight way from a dataset to a TensorRT engine and an honest measurement.

Each module has one job and hands its result to the next::

    data -> classifier -> onnx_export -> engine -> runners -> benchmark, metrics -> plotting

Heavy libraries (Paddle, TensorRT, ONNX Runtime, PyCUDA) are imported by the module that uses them, so that importing
this package is quick and works where one of them is missing.
"""

__version__ = "0.1.0"
