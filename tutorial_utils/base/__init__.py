"""What every room stands on: errors, paths, progress, other processes, and which TensorRT is installed."""
