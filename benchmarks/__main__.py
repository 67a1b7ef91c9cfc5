"""Measure every pair, print the table, and write it to build/bench.json and build/bench.md with the machine's stamp."""

import json
import os
from datetime import datetime, timezone

from benchmarks import pairs
from benchmarks.ratio import Ratio, stamp, table
from tutorial_utils.base import paths
from tutorial_utils.machine import capabilities
from tutorial_utils.model import classifier, networks


def main() -> None:
    """Prepare the models, then let the pairs take their turns. It takes about 4 minutes on 2 cores."""
    quick, resnet = networks.quick()["fp32"], networks.resnet50()["fp32"]
    saved = classifier.save(
        classifier.build("resnet50"), paths.cache_dir("models", "bench") / "model", (None, *pairs.SHAPE)
    )
    load = [os.getloadavg()[0]]
    ratios: list[Ratio] = []
    for measured in (
        pairs.onnx_runtime_calls(quick, resnet),
        pairs.tensorrt_calls(quick, resnet),
        pairs.timers(resnet),
        pairs.cached_engine(resnet),
        pairs.build_processes(resnet),
        pairs.export_processes(saved),
        pairs.notebook_processes(pairs.ROOT / "notebooks" / "00_start_here.ipynb"),
    ):
        for ratio in measured:
            print(f"{ratio.name}: {f'not run: {ratio.not_run}' if ratio.not_run else f'{ratio.ratio:.3f}'}", flush=True)
            ratios.append(ratio)
    load.append(os.getloadavg()[0])

    machine = capabilities.probe().machine()
    text = f"{table(ratios)}\n\n{stamp(machine, load)}\n"
    print(f"\n{text}")
    folder = pairs.ROOT / "build"
    folder.mkdir(exist_ok=True)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    values = {"date": date, "machine": machine, "load": load, "ratios": [ratio.to_dict() for ratio in ratios]}
    (folder / "bench.json").write_text(json.dumps(values, indent=1) + "\n")
    (folder / "bench.md").write_text(text)


if __name__ == "__main__":
    main()
