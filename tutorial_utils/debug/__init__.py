"""Where results go wrong first, by how much, and what helps."""
