"""Each script of `benchmarks` runs, at its smallest: nobody runs most of them for months."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import (
    attention,
    cost,
    export_precision,
    measure,
    models,
    onnx_models,
    selections,
    serving_memory,
    soak,
    training_step,
)
from tests.processes import succeed
from tests.serving_model import write_model_like_migan
from tests.tiny_run import write_run


@pytest.fixture
def results(monkeypatch, tmp_path):
    """Reads results, which are kept in a folder of their own; no process is started for a part."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(measure, "in_own_process", lambda function, *words: function(*words))
    return lambda name: json.loads((tmp_path / f"{name}.json").read_text())


def test_the_memory_of_serving_is_measured(results, model, monkeypatch):
    monkeypatch.setattr(serving_memory, "WIDTH", 96)
    monkeypatch.setattr(serving_memory, "HEIGHT", 64)
    monkeypatch.setattr(serving_memory, "ORIGINALS", ((64, 32),))
    monkeypatch.setattr(measure, "resident_peak", lambda: 2**27)
    assert serving_memory.main(["--model", str(model)]) == 0
    record = results("serving_memory")
    assert len(record["rows"]) == 6 + len(serving_memory.COMMAND_BOUNDS)
    assert record["failures"] == []
    monkeypatch.setattr(serving_memory, "SESSION_BOUND", -1)
    assert serving_memory.main(["--model", str(model)]) == 1
    assert len(results("serving_memory")["failures"]) == 6


def test_a_box_around_an_object_selects_it(tmp_path):
    pixels = np.random.default_rng(0).integers(90, 110, (64, 64, 3), np.uint8)
    pixels[20:40, 15:45] += np.uint8([100, 0, 0])
    Image.fromarray(pixels).save(tmp_path / "sign.png")
    outline = [[15, 20], [44, 20], [44, 39], [15, 39]]
    entry = {"file": "sign.png", "object": "sign", "outline": outline}
    found = selections.select_one(entry, tmp_path)
    assert found["object"] == "sign"
    assert found["overlap"] > selections.ENOUGH


@pytest.mark.slow
def test_the_server_is_compared_with_loops(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "CLIENTS", (1, 2))
    migan = write_model_like_migan(tmp_path / "migan.onnx")
    options = cost.argparse.Namespace(migan=migan, width=160, rounds=1, seconds=0.3)
    rows = cost.measure_server("server", options)
    assert len(rows) == 2 * len(cost.CLIENTS)
    assert all(row["ratio"] > 0 for row in rows)


@pytest.mark.slow
def test_a_server_is_soaked(results, model, monkeypatch):
    kinds = soak.hostile_requests
    monkeypatch.setattr(soak, "hostile_requests", lambda good: kinds(good)[8:10])
    monkeypatch.setattr(soak, "HOSTILE_SHARE", 0.5)
    monkeypatch.setattr(soak, "BURST", 4)
    words = ["--model", str(model), "--minutes", "0.2", "--capacity-seconds", "1"]
    soak.main(words)  # too short to judge the memory
    record = results("soak")
    assert record["faults"] == []
    assert record["alone"]["answered"] > 0
    assert record["after_the_burst"]["readyz"] == 200


@pytest.mark.slow
def test_the_attention_is_timed(results, monkeypatch):
    shapes = {name: (1, 8) for name in attention.SHAPES}
    monkeypatch.setattr(attention, "SHAPES", shapes)
    monkeypatch.setattr(attention, "SIDE", 32)
    assert attention.main(["--rounds", "1"]) == 0
    record = results("attention")
    assert len(record["ratios"]) == 2 * (len(attention.RATIOS) + 1) + 1
    assert all(ratio > 0 for ratio in record["ratios"].values())


@pytest.mark.slow
def test_models_are_timed_in_onnx_runtime(results, monkeypatch, tmp_path):
    migan = write_model_like_migan(tmp_path / "migan.onnx")
    narrow = {
        name: ("lite", fields | {"width": 4}) for name, (_, fields) in onnx_models.VARIANTS.items()
    }
    monkeypatch.setattr(models, "migan", lambda: migan)
    monkeypatch.setattr(models, "FIXED_SIZE", (1, 64, 64))
    monkeypatch.setattr(onnx_models, "VARIANTS", narrow)
    monkeypatch.setattr(onnx_models, "SIDE", 64)
    monkeypatch.setattr(onnx_models, "PEAKS", {"a peak": ("bounded", 64, 2, False)})
    assert onnx_models.main(["--rounds", "1"]) == 0
    assert len(results("onnx_models")["ratios"]) == 4
    assert 0 < results("onnx_models")["attention_share"] < 1
    assert results("onnx_memory")["peak_bytes"]["a peak"] > 0


@pytest.mark.slow
def test_the_precisions_of_a_file_are_compared(results, tmp_path):
    run = write_run(tmp_path / "run")
    recipe = {"dataset": "demo", "data_dir": None, "image_size": 32, "mask": "center"}
    recipe |= {"method": "musical", "preset": "paper"}
    (run / "recipe.json").write_text(json.dumps(recipe))
    words = ["--run", str(run), "--photographs", "2", "--rounds", "1"]
    assert export_precision.main(words) == 0
    files = results("export_precision")["files"]
    assert set(files) == {"float32", "float16", "int8"}
    assert all(file["known_pixels_exact"] for file in files.values())


@pytest.mark.slow
def test_a_training_step_and_its_parts_are_timed(results, monkeypatch):
    monkeypatch.setattr(training_step, "CASES", {"tiny": training_step.Case("lite", 32, 1)})
    options = cost.argparse.Namespace(
        cases=["tiny"], precisions=["float32", "mixed_bfloat16"], rounds=1, command="c"
    )
    training_step.measure_steps(options)
    ratios = results("training_step")["ratios"]
    assert len(ratios) == 2 * 4 + 2
    assert all(ratio > 0 for ratio in ratios.values())


JAX = """
import argparse, pathlib, sys
from benchmarks import measure, training_step
measure.RESULTS = pathlib.Path(sys.argv[1])
measure.in_own_process = lambda function, *words: function(*words)
training_step.CASES = {"tiny": training_step.Case("lite", 32, 1)}
training_step.JAX_CALLS = 1
training_step.ALONE |= {"width": 4, "inner_levels": 1}
precisions = ["float32", "mixed_bfloat16"]
training_step.measure_jax(
    argparse.Namespace(cases=["tiny"], precisions=precisions, rounds=1, command="c")
)
"""


@pytest.mark.slow
def test_a_step_under_jax_is_timed(results, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    succeed(sys.executable, "-c", JAX, tmp_path, cwd=measure.ROOT)
    record = results("gpu_step")
    assert record["command"] == "KERAS_BACKEND=jax c"
    assert "times as fast as float32" in record["quantities"]["tiny, mixed_bfloat16"]
