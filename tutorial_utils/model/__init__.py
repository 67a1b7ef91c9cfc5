"""Images to a Paddle model to ONNX files in each precision."""
