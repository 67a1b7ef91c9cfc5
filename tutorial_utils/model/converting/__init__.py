"""What `half_precision` and `quantization` stand on: which tensors of a graph take which type, and what calibrates."""
