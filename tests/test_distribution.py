"""Several replicas train what one device trains; a lost process ends the run, and it resumes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.processes import ROOT, run_python, succeed
from training import checkpoints, fit, recipes
from training.data import pipeline
from training.distribution import Cluster, Distribution, read_cluster

TWO = ["a:1", "b:2"]


def tf_config(cluster, kind="worker", index=0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


# --- TF_CONFIG and the parts of a batch -------------------------------------------------------


def test_a_cluster_is_read_chief_first():
    assert read_cluster(tf_config({"worker": TWO}, index=1)) == Cluster(("a:1", "b:2"), 1)
    with_chief = {"worker": TWO, "chief": ["c:3"]}
    assert read_cluster(tf_config(with_chief, "chief")) == Cluster(("c:3", "a:1", "b:2"), 0)
    assert read_cluster(tf_config(with_chief, index=1)) == Cluster(("c:3", "a:1", "b:2"), 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "is not set"),
        ("{", "is not JSON"),
        ("[]", 'no "cluster" or no "task"'),
        ('{"cluster": {"worker": ["a:1"]}}', 'no "cluster" or no "task"'),
        (tf_config({"ps": ["a:1"]}), "the job 'ps'; only chief and worker"),
        (tf_config({"worker": "a:1"}), "'a:1' as the addresses of worker"),
        (tf_config({"worker": ["a"]}), "['a'] as the addresses of worker"),
        (tf_config({"worker": ["a:b"]}), "not a list of host:port"),
        (tf_config({"chief": TWO}, "chief"), "more than one chief"),
        (tf_config({"worker": ["a:1", "a:1"]}), "one address twice"),
        (tf_config({"worker": []}), "no address"),
        (
            tf_config({"worker": TWO}, index=2),
            "this is worker 2, and the cluster has worker 0 to 1",
        ),
        (tf_config({"worker": TWO}, index="0"), "this is worker '0'"),
        (tf_config({"worker": TWO}, "chief"), "this is chief 0"),
    ],
)
def test_a_wrong_tf_config_is_one_clear_line(text, expected, monkeypatch, capsys):
    if text is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", text)
    arguments = ["--dataset", "demo", "--strategy", "multiworker", "--run-dir", "nowhere"]
    assert fit.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
    assert 'expected the likes of {"cluster"' in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--strategy", "mirored"], "--strategy must be one of none, mirrored, multi"),
        (["--replicas", "2"], "--replicas goes with --strategy mirrored, not with none"),
        (["--strategy", "mirrored", "--replicas", "0"], "--replicas must be at least 1, got 0"),
        (["--strategy", "multiworker"], "--strategy multiworker needs --run-dir"),
        (
            ["--strategy", "multiworker", "--run-dir", "nowhere", "--batch-size", "5"],
            "a multiple of their number, 2: 5 is not, 4 or 6 would be",
        ),
    ],
)
def test_what_cannot_be_shared_is_refused(arguments, expected, monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", tf_config({"worker": TWO}))
    assert fit.main(["--dataset", "demo", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_the_processes_share_a_batch_in_order():
    parts = [Distribution(None, 6, 3, process).local_part(12) for process in range(3)]
    assert parts == [(0, 4), (4, 4), (8, 4)]
    assert Distribution().local_part(5) == (0, 5)
    with pytest.raises(ValueError, match="6: 4 is not, 6 would be"):
        Distribution(None, 6, 3, 0).local_part(4)


def test_the_parts_of_a_pipeline_are_the_whole_batch():
    recipe = recipes.resolve("demo", image_size=64, batch_size=6, mask="irregular")
    photographs, holes = recipe.open_photographs(), recipe.open_masks()

    def take(part):
        samples = pipeline.SampleStream(photographs, holes, 3)
        stream = pipeline.training_pipeline(samples, 6, start_step=5, part=part)
        return [{k: v.numpy() for k, v in batch.items()} for batch in stream.take(2)]

    parts = [take((first, 2)) for first in (0, 2, 4)]
    for index, whole in enumerate(take(None)):
        for name, values in whole.items():
            joined = np.concatenate([part[index][name] for part in parts])
            np.testing.assert_array_equal(joined, values)
    with pytest.raises(ValueError, match=r"part must lie within a batch of 6, got \(4, 3\)"):
        take((4, 3))


# --- two devices, one process -----------------------------------------------------------------


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    output = tmp_path_factory.mktemp("probe") / "result.json"
    succeed(sys.executable, "-m", "tests.replicas_probe", "2", output, cwd=ROOT)
    return json.loads(output.read_text())


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        ("musical", 1e-4),
        ("tiny", 1e-4),
        ("float16", 2e-2),
        ("in parts", 1e-4),
    ],
)
def test_two_replicas_give_the_losses_of_one_device(probe, case, tolerance):
    one, many = probe[f"{case}_one"], probe[f"{case}_many"]
    assert probe["placement"] == {**probe["placement"], "replicas": 2, "processes": 1}
    for alone, shared in zip(one["logs"], many["logs"], strict=True):
        assert alone.keys() == shared.keys()
        for name, value in alone.items():
            assert shared[name] == pytest.approx(value, rel=tolerance, abs=1e-6), name
    # The steps did something, and the last losses can only agree where the weights do.
    assert one["logs"][0]["total"] != one["logs"][-1]["total"]
    assert many["norm"] == pytest.approx(one["norm"], rel=tolerance)
    if case != "musical":
        assert many["scales"] == pytest.approx(one["scales"])


@pytest.mark.parametrize("case", ["tiny", "float16"])
def test_a_checkpoint_restores_exactly_on_another_number_of_replicas(probe, case):
    assert probe[f"{case}_one_to_many"] == [True, True]
    assert probe[f"{case}_many_to_one"] == [True]


def test_replicas_draw_differently_and_the_same_again(probe):
    first, again = probe["draws"]
    assert first == again
    for replicas in first:
        assert len(set(replicas)) == 2
    assert first[0] != first[1]


RUN = [
    *("--dataset", "demo", "--image-size", "64", "--batch-size", "4", "--mask", "irregular"),
    *("--set", "width=4", "inner_levels=1", "schedule=constant", "sample_every=0", "--seed", "5"),
    *("--set", "lambda_perceptual=0", "lambda_style=0", "attention=false"),
]


def losses(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return {row["step"]: row["total"] for row in map(json.loads, lines)}


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_replicas(tmp_path):
    straight, run_dir = tmp_path / "straight", tmp_path / "run"
    assert fit.main([*RUN, "--steps", "4", "--run-dir", str(straight)]) == 0
    command = [sys.executable, "-m", "training.fit", "--strategy", "mirrored", "--replicas", "2"]
    there = ["--run-dir", str(run_dir)]
    assert "2 replicas" in succeed(*command, *RUN, "--steps", "2", *there, cwd=ROOT)
    assert fit.main([*there, "--resume", "--steps", "4"]) == 0
    assert losses(run_dir) == pytest.approx(losses(straight), rel=1e-4)
    assert list(losses(run_dir)) == [1, 2, 3, 4]


# --- two processes ----------------------------------------------------------------------------


def free_ports(count):
    with_sockets = [socket.socket() for _ in range(count)]
    for each in with_sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in with_sockets]
    for each in with_sockets:
        each.close()
    return ports


def start_workers(folder, *arguments):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = []
    for index in range(2):
        environment = {**os.environ, "TF_CONFIG": tf_config({"worker": addresses}, index=index)}
        with (folder / f"out{index}").open("w") as out, (folder / f"err{index}").open("w") as err:
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-m", "training.fit", "--strategy", "multiworker", *arguments],
                    cwd=ROOT,
                    env=environment,
                    stdout=out,
                    stderr=err,
                )
            )
    return workers


def wait_for(condition, seconds, workers):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert all(worker.poll() is None for worker in workers)
        time.sleep(0.2)


@pytest.mark.slow
def test_a_process_that_stays_alone_ends(tmp_path):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    code = (
        "import os\n"
        "from training import distribution\n"
        "cluster = distribution.read_cluster(os.environ['TF_CONFIG'])\n"
        "distribution.open_distribution('multiworker', cluster=cluster, wait_seconds=2)\n"
    )
    environment = os.environ | {"TF_CONFIG": tf_config({"worker": addresses})}
    done = run_python("-c", code, env=environment)
    assert done.returncode == -signal.SIGKILL
    expected = f"waited 2 seconds for the other processes of TF_CONFIG, {addresses[1]}; start"
    assert expected in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_both_and_the_run_resumes(tmp_path, victim):
    run_dir = tmp_path / "run"
    there = ["--run-dir", str(run_dir)]
    straight = tmp_path / "straight"
    assert fit.main([*RUN, "--steps", "4", "--run-dir", str(straight)]) == 0
    workers = start_workers(
        tmp_path, *RUN, "--steps", "100000", "--checkpoint-every", "5", "--keep", "2", *there
    )
    try:
        saved = run_dir / "checkpoints"
        wait_for(lambda: saved.is_dir() and any(saved.glob("step-*")), 600, workers)
        workers[victim].send_signal(signal.SIGKILL)
        survivor = workers[1 - victim]
        assert survivor.wait(timeout=600) == 1
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    error = (tmp_path / f"err{1 - victim}").read_text()
    assert "musical-fit: error: lost another process of TF_CONFIG" in error
    assert "Traceback" not in error
    newest, _ = checkpoints.newest(saved)
    assert f"{newest.path}" in error
    first = losses(run_dir)
    for step, loss in losses(straight).items():
        assert first[step] == pytest.approx(loss, rel=1e-4)
    before = {path for path in run_dir.rglob("*") if path.is_file()}
    assert before  # the chief's alone

    last = newest.step + 3
    workers = start_workers(tmp_path, *there, "--resume", "--steps", str(last))
    try:
        assert [worker.wait(timeout=600) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    assert f"done: {last} steps" in (tmp_path / "out0").read_text()
    assert checkpoints.newest(saved)[0].step == last
    assert list(losses(run_dir)) == list(range(1, last + 1))
    shutil.rmtree(run_dir)
