"""A look inside a model or an engine, without a GPU."""
