"""Import libraries in a process of their own and report what became of them: the script that `capabilities` starts.

A broken GPU library can end the process that imports it, so the process that asks must be another one. The script
imports next to nothing itself: it runs once for each library while a reader waits.
"""

import gc
import importlib
import json
import os
import sys
from types import ModuleType
from typing import Any

REPORT_PREFIX = "tutorial_utils import report: "  # tells these lines from what the libraries print


def main(search_path: str, *modules: str) -> None:
    """Import modules one after the other and print one line about each: the prefix, then JSON.

    The JSON is `{module: {"version": ..., "details": ...}}`, or `{module: {"error": ...}}` when the import raises.
    Ends the process without Python's own clean-up, in which some libraries crash.

    Args:
        search_path: The caller's `sys.path` as JSON, so that both find the same modules.
        modules: Names of the modules.
    """
    sys.path[:] = json.loads(search_path)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # or ONNX Runtime sends usage data when it is imported
    gc.disable()  # takes a third off Paddle's import, the longest by far
    for name in modules:
        try:
            module = importlib.import_module(name)
            report = {"version": str(getattr(module, "__version__", "")), "details": _details(name, module)}
        except BaseException as error:  # a broken library raises whatever it likes, SystemExit too
            message = " ".join(str(error).split())[:200].rstrip(".")
            report = {"error": f"{type(error).__name__}: {message}"}
        # The line break comes first because a library may have printed half a line.
        print(f"\n{REPORT_PREFIX}{json.dumps({name: report})}", flush=True)
    os._exit(0)


def _details(name: str, module: ModuleType) -> dict[str, Any]:
    """Return what only the imported library knows."""
    if name == "onnxruntime":
        return {"providers": module.get_available_providers()}
    if name == "paddle":
        inference = importlib.import_module("paddle.inference")
        # The version of TensorRT is (0, 0, 0) in a build without it.
        return {"cuda": module.is_compiled_with_cuda(), "tensorrt": list(inference.get_trt_compile_version())}
    if name == "pycuda":
        importlib.import_module("pycuda.driver")  # the part that is bound to the driver and the toolkit
    return {}


if __name__ == "__main__":
    main(*sys.argv[1:])
