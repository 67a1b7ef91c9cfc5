"""Netron in a notebook: a frame with the live viewer while a person looks, a still picture for everyone else.

``netron.start("model.onnx")`` in a terminal is all that daily work needs. A notebook needs more: it is also executed
with nobody there, and its outputs are committed, where a frame would point at a server that is long gone.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tutorial_utils.base.errors import ModelFileError

if TYPE_CHECKING:
    from IPython.display import IFrame, Image

_HEIGHT = 600  # pixels of the frame


def start(onnx_path: str | Path) -> str:
    """Serve a model and Netron's page at a free port of 127.0.0.1.

    One process serves one model at a time: with the next, earlier addresses have that one too.
    Other than `netron.start` with a file's name, this serves nothing but the model: no files that lie beside it. Netron
    then shows the graph of a model with external weights, but not their values.

    Returns:
        The address for a browser of this machine, such as ``http://127.0.0.1:41234/``.

    Raises:
        ModelFileError: The file is missing or empty.
    """
    import netron

    onnx_path = Path(onnx_path)
    if not onnx_path.is_file() or not onnx_path.stat().st_size:
        raise ModelFileError(f"{onnx_path} is missing or empty.", "Check the path, or export the model first.")
    logging.getLogger("netron").setLevel(logging.WARNING)  # or its address would be among a cell's outputs
    logging.basicConfig(level=logging.WARNING)  # before Netron does it for the whole process, at INFO
    # The model takes the place of the folder, in which Netron would look for further files.
    name = onnx_path / onnx_path.name
    host, port = netron.serve(str(name), bytearray(onnx_path.read_bytes()), ("127.0.0.1", 0))
    return f"http://{host}:{port}/"


def stop(url: str) -> None:
    """End the server that has this address, and return when its port is closed."""
    import netron

    address = (urlsplit(url).hostname, urlsplit(url).port)
    netron.stop(address)
    while netron.status(address):  # its thread looks up every 0.25 s
        time.sleep(0.02)


@contextlib.contextmanager
def serving(onnx_path: str | Path) -> Iterator[str]:
    """Serve a model while the block runs, and give its address. See `start`."""
    url = start(onnx_path)
    try:
        yield url
    finally:
        stop(url)


def show(onnx_path: str | Path, still: "Image") -> "IFrame | Image":
    """Return what a cell shows: Netron in a frame where someone looks, the still picture where the cell runs headless.

    The server of the frame ends with the kernel, or with ``netron.stop()``.
    """
    from IPython.display import IFrame

    if not someone_looks():
        return still
    return IFrame(start(onnx_path), width="100%", height=_HEIGHT)


def someone_looks() -> bool:
    """Say whether a front end such as JupyterLab runs the present cell.

    A front end sends the cell's id along with its code, as ipykernel expects it. What executes notebooks headless
    (nbclient, nbconvert, nbval) sends code alone.
    """
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return kernel is not None and "cellId" in kernel.get_parent().get("metadata", {})
