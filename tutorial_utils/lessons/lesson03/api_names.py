"""Which names of TensorRT's API some code uses, read from its text, and whether a TensorRT has them.

It imports no TensorRT: also 8.6 is asked, which the rest of the package doesn't run with.
"""

import ast
import operator
from types import ModuleType

# What the variables of the code are.
CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "tensor": "ITensor",
}


def used(code: str) -> list[str]:
    """Return the names that some code uses, sorted: "Builder.create_network" for ``builder.create_network``.

    The code's variables are those of `CLASSES`, and ``trt``. What begins otherwise is not TensorRT's.
    """
    chains = {ast.unparse(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)}
    return sorted(set(filter(None, map(_api_name, chains))))


def exists(name: str, tensorrt: ModuleType) -> bool:
    """Whether a TensorRT has a name."""
    try:
        operator.attrgetter(name)(tensorrt)
    except AttributeError:
        return False
    return True


def _api_name(chain: str) -> str | None:
    """Return "Builder.create_network" for "builder.create_network"; None for what is not TensorRT's."""
    variable, _, rest = chain.partition(".")
    if "(" in chain:  # of what a call returned: its class isn't known
        return None
    if variable == "trt":
        return rest
    return f"{CLASSES[variable]}.{rest}" if variable in CLASSES else None
