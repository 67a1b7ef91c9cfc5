"""Support package of the course: the straight way from a dataset to a TensorRT engine and an honest measurement.

Its rooms hand their results to the next::

    model -> engine -> runners -> measure

Heavy libraries (Paddle, TensorRT, ONNX Runtime, PyCUDA) are imported by the module that uses them, so that importing
this package is quick and works where one of them is missing.
"""

__version__ = "0.1.0"
