"""Programs that measure the package, and the pages that they write: see README.md."""
