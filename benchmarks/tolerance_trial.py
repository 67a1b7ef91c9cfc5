"""How often lesson 04's tolerance catches a fault, and fires on a sound model: `python -m benchmarks.tolerance_trial`.

Both patients, the text detector and the transformer, in FP16, with every rounding written down on the CPU. Each of
twenty draws takes inputs, a layer with weights, and half of the nodes. Sound are the FP16 file, and one with these
nodes in FP32; faulty is one whose layer has weights that are too large by a part. The tolerance is three times the
largest error of the FP16 file on four other draws of inputs, for each tensor. Errors are taken in two ways: along the
network, where those of all earlier nodes add up, and of each node alone, given the tensors of FP32
(`tensor_errors.each_node`).
"""

import argparse
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
from onnx import numpy_helper

from tutorial_utils.debug import tensor_errors
from tutorial_utils.lessons.lesson04 import patients
from tutorial_utils.lessons.lesson04.patients import Patient
from tutorial_utils.model import half_precision, onnx_file

TABLE = Path(__file__).with_suffix(".md")
SEEDS, TRUSTED = 20, 4
FAULTS = (0.003, 0.01, 0.03)  # how much too large the weights of a layer are
AIM = 18  # of the faults of 1 %, each node alone; of the sound files, all
LAYERS = ("Conv", "ConvTranspose", "Gemm", "LayerNormalization", "MatMul")
Tables = dict[str, pd.DataFrame]  # by the way in which errors are taken


def weighted(model: onnx.ModelProto) -> list[tuple[onnx.NodeProto, str]]:
    """Return the layers of a model, each with the name of its weights."""
    weights = {one.name for one in model.graph.initializer}
    found = [(node, node.input[1]) for node in model.graph.node if node.op_type in LAYERS]
    return [(node, name) for node, name in found if name in weights]


def with_fault(path: Path, weight: str, part: float, target: Path) -> Path:
    """Write the FP16 file of a model whose weights of one layer are too large by a part."""
    model = onnx_file.load(path)
    tensor = next(one for one in model.graph.initializer if one.name == weight)
    values = numpy_helper.to_array(tensor) * np.float32(1 + part)
    tensor.CopyFrom(numpy_helper.from_array(values, weight))
    return half_precision.to_fp16(onnx_file.save(model, target), target)


def errors(path: Path, exact: dict[str, np.ndarray], feeds: dict[str, np.ndarray]) -> Tables:
    """Return the errors of a file's tensors along the network and of each node alone."""
    along = tensor_errors.all_outputs(path, feeds)
    alone = tensor_errors.each_node(path, {**feeds, **exact})
    return {
        "along the network": tensor_errors.compare({name: exact[name] for name in exact if name in along}, along),
        "each node alone": tensor_errors.compare({name: exact[name] for name in alone}, alone),
    }


def trial(patient: Patient, random: np.random.Generator, folder: Path) -> dict[str, Counter[str]]:
    """Return for each way in which errors are taken how many files of each kind passed or were caught."""
    model = onnx_file.load(patient.sound)
    layers, nodes = weighted(model), [node.name for node in model.graph.node]
    half = half_precision.to_fp16(patient.sound, folder / "half.onnx")

    def draw() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        feeds = patient.feeds(int(random.integers(10**6)))
        return feeds, tensor_errors.all_outputs(patient.sound, feeds)

    trusted = [errors(half, exact, feeds) for feeds, exact in (draw() for _ in range(TRUSTED))]
    allowed = {way: tensor_errors.tolerances(one[way] for one in trusted) for way in trusted[0]}
    found: dict[str, Counter[str]] = {way: Counter() for way in allowed}
    for number in range(SEEDS):
        feeds, exact = draw()
        kept = random.choice(nodes, len(nodes) // 2, replace=False)
        mixed = half_precision.to_fp16(patient.sound, folder / "mixed.onnx", keep_fp32=kept)
        for kind, path in (("sound", half), ("mixed", mixed)):
            for way, table in errors(path, exact, feeds).items():
                found[way][kind] += tensor_errors.first_bad(table, rel_l2=allowed[way]) is None
        node, weight = layers[random.integers(len(layers))]
        for part in FAULTS:
            path = with_fault(patient.sound, weight, part, folder / "fault.onnx")
            for way, table in errors(path, exact, feeds).items():
                bad = tensor_errors.first_bad(table, rel_l2=allowed[way])
                found[way][f"{part:.1%}"] += bad is not None
                found[way][f"{part:.1%} named"] += bad in node.output
        print(f"{patient.name} {number + 1} of {SEEDS}: {node.name}", flush=True)
    return found


def main(makers: tuple[Callable[[], Patient], ...] = (patients.detector, patients.transformer)) -> int:
    """Run the trial and write the table; return 0 if the figures are reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="of the seeds (default: another one each time)")
    seed = parser.parse_args().seed
    seed = secrets.randbelow(10**6) if seed is None else seed
    random = np.random.default_rng(seed)
    kinds = [f"{part:.1%}" for part in FAULTS]
    faulty = " | ".join(f"{one} caught (named)" for one in kinds)
    lines = [
        f"| network | errors taken | FP16 passes | mixed passes | {faulty} |",
        f"|:--|:--|--:|--:|{'--:|' * len(kinds)}",
    ]
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        for patient in (make() for make in makers):
            for way, counts in trial(patient, random, Path(folder)).items():
                caught = " | ".join(f"{counts[one]} ({counts[f'{one} named']})" for one in kinds)
                lines.append(f"| {patient.name} | {way} | {counts['sound']} | {counts['mixed']} | {caught} |")
                if way == "each node alone":
                    reached &= counts["sound"] == counts["mixed"] == SEEDS and counts["1.0%"] >= AIM
    text = "\n\n".join(
        (
            "# A tolerance that catches a fault of 1 %",
            " ".join(__doc__.split()),
            f"Seed {seed}. Of {SEEDS} each; in brackets, how often the first bad tensor was the layer's own.",
            "\n".join(lines),
        )
    )
    TABLE.write_text(f"{text}\n", encoding="utf-8")
    print(text)
    return int(not reached)


if __name__ == "__main__":
    raise SystemExit(main())
