"""What the package costs beside the bare libraries: ratios of two times, measured in turn. `make bench` runs it."""
