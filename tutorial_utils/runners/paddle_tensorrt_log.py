"""What Paddle's log says of Paddle-TRT: how much of a program became TensorRT engines, and what TensorRT warned of.

Paddle has no call that tells it. The lines are those of Paddle 2.6.2 (tensorrt_subgraph_pass.cc) with TensorRT 8.6.1,
as an H100 printed them; Paddle 3 prints the same ones.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class OffloadLog:
    """What became of a program.

    Attributes:
        subgraphs: Operators in each part that became an engine, after Paddle fused what it could.
        whole: Whether Paddle says that nothing stayed outside.
        from_cache: Whether engines were read from the cache folder instead of built.
        kept_out: Kinds of operators that stayed outside because they were asked to, or TensorRT doesn't take them.
        warnings: What TensorRT warned of, each once.
    """

    subgraphs: tuple[int, ...]
    whole: bool
    from_cache: bool
    kept_out: tuple[str, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        sizes = ", ".join(f"{size} operators" for size in self.subgraphs)
        parts = f"{len(self.subgraphs)} subgraph{'' if len(self.subgraphs) == 1 else 's'} for TensorRT"
        return f"{parts}{f' ({sizes})' if sizes else ''}; {'nothing' if self.whole else 'something'} stayed with Paddle"


def parse(text: str) -> OffloadLog:
    """Read the log of a predictor's creation."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in text.splitlines()]
    found = [re.search(r"detect a sub-graph with (\d+) nodes", line) for line in lines]
    refused = [re.search(r"(\w+) (?:op is not in|is diabled by config in) TensorRT", line) for line in lines]
    warned = [re.search(r"^W\d.*?\] (.+)$", line) for line in lines]
    return OffloadLog(
        subgraphs=tuple(int(one[1]) for one in found if one),
        whole="The entire graph is offloaded to TensorRT" in text,
        from_cache="Load TRT Optimized Info from" in text,
        kept_out=tuple(sorted({one[1] for one in refused if one})),
        warnings=tuple(dict.fromkeys(one[1] for one in warned if one)),
    )


def last_line(text: str) -> str:
    """Return the line that says why a process ended: that of Paddle's error, or else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"\w*(Error|\(\w+\)|terminate called)", line)]
    return re.sub(r"\s*\(at /.*", "", (errors or lines or ["it printed nothing"])[-1]).rstrip(".")
