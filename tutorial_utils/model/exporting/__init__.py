"""What `export.to_onnx` stands on: paddle2onnx in its own process, what it is given, what its result is held to."""
