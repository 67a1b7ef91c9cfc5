"""A program of Paddle 3.3, written so that paddle2onnx 2.1.0 computes what Paddle does. Paddle keeps the original.

paddle2onnx leaves attributes in double precision unread, or stops at them; it clips every hardtanh at -1 and 1, takes
the exact GELU for its approximation, and gives a LayerNorm over several axes flat weights, which ONNX forbids. With
newer versions, `tests/model/exporting/test_paddle2onnx_input.py` fails where one of that has become needless.
"""

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

# paddle2onnx reads their doubles, which hold large integers too.
_READ_AS_DOUBLES = ("1.full", "1.assign_value_")
Value = dict[str, int]  # reads a result of another operator, by its number


def write(program: Path, target: Path) -> None:
    """Write a copy of a ``.json`` program for paddle2onnx."""
    text = program.read_text(encoding="utf-8")
    content = json.loads(text)
    _Writer(max(map(int, re.findall(r'"%": ?(\d+)', text)))).rewrite(content["program"]["regions"])
    target.write_text(json.dumps(content), encoding="utf-8")


class _Writer:
    """Writes the operators of a program anew, in order, some of them as others."""

    def __init__(self, last_number: int):
        self.numbers = itertools.count(last_number + 1)
        self.written: list[dict[str, Any]] = []  # of the block at hand
        self.kinds: dict[int, list] = {}  # data type, shape and layout of each tensor, by its number

    def rewrite(self, regions: list[dict]) -> None:
        for block in itertools.chain.from_iterable(region["blocks"] for region in regions):
            outer, self.written = self.written, []
            for operation in block["ops"]:
                results = operation["O"] if isinstance(operation["O"], list) else [operation["O"]]
                self.kinds |= {result["%"]: result["TT"]["D"] for result in results if result.get("TT")}
                self.rewrite(operation.get("regions", []))
                if operation["#"] not in _READ_AS_DOUBLES:
                    stored = json.dumps(operation.get("A", []))
                    operation["A"] = json.loads(stored.replace('"0.a_f64"', '"0.a_f32"'))
                given = {item["N"]: item["AT"]["D"] for item in operation.get("A", ()) if isinstance(item, dict)}
                if operation["#"] == "1.hardtanh":
                    self.clip(operation, given)
                elif operation["#"] == "1.gelu" and given["approximate"]:
                    self.gelu(operation)
                elif operation["#"] == "1.layer_norm":
                    self.layer_norm(operation, given["begin_norm_axis"])
                self.written.append(operation)
            block["ops"], self.written = self.written, outer

    def add(self, name: str, inputs: list[Value], kind: list, **attributes: tuple[str, Any]) -> Value:
        """Write an operator with one result of this kind; attributes are pairs of a type and a value."""
        result = {"%": next(self.numbers), "TT": {"#": "0.t_dtensor", "D": kind}}
        stored = [{"N": key, "AT": {"#": f"{type_}", "D": value}} for key, (type_, value) in attributes.items()]
        self.written.append({"#": f"1.{name}", "A": stored, "I": inputs, "O": [result], "OA": []})
        return {"%": result["%"]}

    def constant(self, value: float) -> Value:
        return self.add(
            "full", [], [{"#": "0.t_f32"}, [1], "NCHW", [], 0],
            shape=("1.a_intarray", [1]), value=("0.a_f32", value), dtype=("1.a_dtype", "float32"),
            place=("1.a_place", [1, 0, ""]),
        )  # fmt: skip

    def clip(self, hardtanh: dict[str, Any], given: dict[str, float]) -> None:
        bounds = [self.constant(given["t_min"]), self.constant(given["t_max"])]
        hardtanh |= {"#": "1.clip", "A": [], "I": hardtanh["I"] + bounds}

    def gelu(self, gelu: dict[str, Any]) -> None:
        """x (1 + tanh z) / 2 = x sigmoid(2 z), where z = sqrt(2 / pi) (x + 0.044715 x^3)."""
        (x,) = gelu["I"]
        kind, factor = self.kinds[x["%"]], 2 * math.sqrt(2 / math.pi)
        square = self.add("multiply", [x, x], kind)
        curve = self.add(
            "scale", [square, self.constant(factor * 0.044715)], kind,
            bias=("0.a_f32", factor), bias_after_scale=("0.a_bool", True),
        )  # fmt: skip
        gate = self.add("sigmoid", [self.add("multiply", [x, curve], kind)], kind)
        gelu |= {"#": "1.multiply", "A": [], "I": [x, gate]}

    def layer_norm(self, norm: dict[str, Any], first_axis: int) -> None:
        sizes = self.kinds[norm["I"][0]["%"]][1][first_axis:]
        if len(sizes) == 1:
            return
        for index, weights in enumerate(norm["I"][1:], 1):
            if weights["%"] in self.kinds:  # a norm without weights reads number 0
                shape = self.add(
                    "full_int_array", [], [{"#": "0.t_i64"}, [len(sizes)], "NCHW", [], 0],
                    value=("0.a_array", [{"#": "0.a_i64", "D": size} for size in sizes]),
                    dtype=("1.a_dtype", "int64"), place=("1.a_place", [1, 0, ""]),
                )  # fmt: skip
                kind = self.kinds[weights["%"]]
                norm["I"][index] = self.add("reshape", [weights, shape], [kind[0], sizes, *kind[2:]])
