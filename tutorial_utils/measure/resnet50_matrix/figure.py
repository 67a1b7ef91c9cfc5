"""The matrix as a figure."""


def draw(matrix):
    raise NotImplementedError
