"""What Paddle's log says of Paddle-TRT: how much of a program became TensorRT engines, and what TensorRT warned of.

Paddle has no call that tells it. The lines are those of Paddle 2.6.2 (tensorrt_subgraph_pass.cc) with TensorRT 8.6.1,
as an H100 printed them. A log in other words is taken for one of a program that isn't whole.
"""

import re
from dataclasses import dataclass

# Makes Paddle print them; read when it is imported. GLOG_vmodule=tensorrt_subgraph_pass=3 would name the operators that
# stay outside, but with it Paddle 2.6.2 spoils its heap, and then hangs or ends when the process does.
VARIABLES = {"GLOG_minloglevel": "0"}


@dataclass(frozen=True)
class OffloadLog:
    """What became of a program.

    Attributes:
        subgraphs: Operators in each part that became an engine, after Paddle fused what it could.
        whole: Whether Paddle says that nothing stayed outside.
        from_cache: Whether engines were read from the cache folder instead of built.
        warnings: What Paddle and TensorRT warned of, each once.
        reasons: Why TensorRT doesn't take an operator, in Paddle's words, each once.
    """

    subgraphs: tuple[int, ...]
    whole: bool
    from_cache: bool
    warnings: tuple[str, ...]
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        sizes = f" (of {', '.join(map(str, self.subgraphs))} operators)" if self.subgraphs else ""
        plural = "" if len(self.subgraphs) == 1 else "s"
        left = "nothing" if self.whole else "something"
        return f"{len(self.subgraphs)} subgraph{plural}{sizes} for TensorRT, and {left} stays with Paddle"


def parse(text: str) -> OffloadLog:
    """Read the log of a predictor's creation."""
    return OffloadLog(
        subgraphs=tuple(map(int, re.findall(r"detect a sub-graph with (\d+) nodes", text))),
        whole="The entire graph is offloaded to TensorRT" in text,
        from_cache="Load TRT Optimized Info from" in text,
        reasons=tuple(dict.fromkeys(re.findall(r"^I.* op_teller\.cc:\d+\] (.+?)\.?$", text, re.MULTILINE))),
        warnings=tuple(dict.fromkeys(re.findall(r"^W\d{4} .*?\] (.+)$", text, re.MULTILINE))),
    )


def last_line(text: str) -> str:
    """Return the line that says why a process ended: what a C++ exception or Paddle says, or else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it printed nothing"]
    for pattern in (r"what\(\):\s*", r"\w*Error: (?=\()", r"Could not load library", r"FatalError: "):
        if told := [line for line in lines if re.match(pattern, line)]:
            return re.sub(r"^(?:what\(\):\s*)|\s*\(at /.*$", "", told[-1]).rstrip(".")
    return lines[-1].rstrip(".")
