"""The trial of lesson 04's tolerance, on a small network: it counts what passes and what is caught."""

import sys

import numpy as np
import pytest
from small_models import images

from benchmarks import tolerance_trial
from tutorial_utils.lessons.lesson04.patients import Patient


def test_sound_files_pass_and_faults_are_caught(fp32_model, tmp_path, monkeypatch, capsys):
    def draw(seed):
        return {"x": images(2) * np.float32(1 + seed % 7 / 10)}

    patient = Patient("small", fp32_model, fp32_model, draw, lambda found, expected: 1.0)
    monkeypatch.setattr(tolerance_trial, "SEEDS", 3)
    monkeypatch.setattr(tolerance_trial, "AIM", 3)
    monkeypatch.setattr(tolerance_trial, "TABLE", tmp_path / "page.md")
    monkeypatch.setattr(sys, "argv", ["tolerance_trial", "--seed", "1"])
    assert tolerance_trial.main((lambda: patient,)) == 0
    page = (tmp_path / "page.md").read_text()
    assert "| small | each node alone | 3 | 3 | 3 (3) | 3 (3) | 3 (3) |" in page
    monkeypatch.setattr(tolerance_trial, "AIM", 4)
    assert tolerance_trial.main((lambda: patient,)) == 1


@pytest.mark.parametrize("part", [0.01, -0.5])
def test_only_the_named_layer_is_faulty(fp32_model, tmp_path, part):
    (node, weight), *_ = tolerance_trial.weighted(tolerance_trial.onnx_file.load(fp32_model))
    path = tolerance_trial.with_fault(fp32_model, weight, part, tmp_path / "fault.onnx")
    feeds = {"x": images(1)}
    exact = tolerance_trial.tensor_errors.all_outputs(fp32_model, feeds)
    alone = tolerance_trial.errors(path, exact, feeds)["each node alone"]["rel_l2"]
    assert alone[node.output[0]] == pytest.approx(abs(part), rel=0.1)
    assert alone.drop(node.output[0]).max() < 2e-3
