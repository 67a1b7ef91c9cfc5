from pathlib import Path

from tutorial_utils.debug import polygraphy_cli
from tutorial_utils.lessons.lesson04 import gpu_commands as experiment

COMPARED = """
[I]     simple | Comparing Output: 'b' (dtype=float16, shape=(4,)) with 'b' (dtype=float32, shape=(4,))
[I]         Error Metrics: b
[I]             Minimum Required Tolerance: elemwise error | [abs=nan] OR [rel=nan] (requirements may be lower)
[E]         FAILED | Output: 'b' | Difference exceeds tolerance (rel=0.0001, abs=0.001)
[I]     simple | Comparing Output: 'a' (dtype=float16, shape=(4,)) with 'a' (dtype=float32, shape=(4,))
[I]         Error Metrics: a
[I]             Minimum Required Tolerance: elemwise error | [abs=0.5] OR [rel=2e-05] (requirements may be lower)
[E]         FAILED | Output: 'a' | Difference exceeds tolerance (rel=0.0001, abs=0.001)
[I]         PASSED | Output: 'c' | Difference is within tolerance (rel=0.0001, abs=0.001)
[I]     trt-runner-N0: b | Stats: mean=nan, std-dev=nan, median=6, min=-inf at (0,), max=3 at (1,), avg-magnitude=inf
[I]     onnxrt-runner-N0: a | Stats: mean=nan, std-dev=nan, median=6, min=nan at (0,), max=nan at (1,)
[I]     trt-runner-N0: a | Stats: mean=1, std-dev=1, median=6, min=1e-05 at (0,), max=3 at (1,), avg-magnitude=inf
[E] FAILED
"""


def test_outcome_of_real_runs(growing):
    names = [f"t{i}" for i in range(1, 5)]
    run = "--onnxrt --onnx-outputs mark all"
    good, bad, same = polygraphy_cli.run_all(
        [
            f"polygraphy run fp32.onnx {run} --validate",
            f"polygraphy run fp16.onnx {run} --validate",
            f"polygraphy run fp32.onnx --onnxrt {run}",
        ],
        growing,
    )
    good, bad, same = (experiment.outcome(one, names) for one in (good, bad, same))
    assert (good["passed"], good["checked"], good["first_not_finite"]) == (True, 4, None)
    assert (bad["passed"], bad["returncode"], bad["first_not_finite"], bad["first_failed"]) == (False, 1, "t2", "t2")
    assert "[E] Inf Detected | One or more non-finite values were encountered in this output" in bad["text"]
    assert (same["passed"], same["failed"], same["last_error"]) == (True, 0, ["t4", 0.0, 0.0])
    assert 0 < same["seconds"] < 600
    assert same["build_seconds"] is None  # nothing was built


def test_outcome_takes_the_order_of_the_model_and_tensorrts_values():
    found = experiment.outcome(polygraphy_cli.Result("polygraphy run", COMPARED, 1), ["a", "b", "c"])
    assert (found["failed"], found["checked"], found["first_failed"]) == (2, 3, "a")
    assert (found["not_finite"], found["first_not_finite"]) == (1, "b")
    assert found["last_error"] is None  # b, the last one that was compared, is NaN
    first = experiment.outcome(polygraphy_cli.Result("polygraphy run", COMPARED, 1), ["b", "c", "a"])
    assert first["first_failed"] == "b"
    assert first["last_error"] == ["a", 0.5, 2e-5]
    assert found["text"][-1] == "[E] FAILED"


def test_commands_name_files_that_are_there():
    for model, _, command in experiment.COMMANDS:
        words = command.split()
        assert words[2] == f"{model}.onnx"
        assert {words[2], words[words.index("--load-inputs") + 1]} <= {*experiment.FILES}


def test_measuring_runs_each_command_beside_the_files_that_it_names(growing, tmp_path, monkeypatch):
    models = {}
    for name in experiment.FILES:
        models[Path(name).stem] = Path(tmp_path / name)
        models[Path(name).stem].write_bytes((growing / "fp32.onnx").read_bytes())
    missing = []

    def run(command, folder):
        missing.extend(name for name in experiment.FILES if name in command and not (Path(folder) / name).is_file())
        return polygraphy_cli.Result(command, "[I] PASSED | Output: 't1'\n[I] PASSED", 0)

    monkeypatch.setattr(polygraphy_cli, "run", run)
    said = experiment.EXPERIMENT.read(experiment.EXPERIMENT.measure(models))
    assert missing == []
    assert [(one.model, one.what, one.command) for one in said] == list(experiment.COMMANDS)
    assert all(one.passed and one.checked == 1 for one in said)
