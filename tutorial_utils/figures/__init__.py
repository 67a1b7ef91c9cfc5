"""The figures that belong to one lesson. What several lessons draw is in `plotting`."""
