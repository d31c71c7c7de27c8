"""Training on several devices or machines at once, through `tf.distribute`.

Every replica holds the whole network and computes its part of the global batch; gradients and loss
terms are the means over the replicas. `mirrored` is one process with several devices, `multiworker`
one process a machine, which find each other by the environment variable TF_CONFIG.
"""

import contextlib
import functools
import hashlib
import json
import os
import reprlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

STRATEGIES = ("none", "mirrored", "multiworker")

WAIT_SECONDS = 600.0
"""How long a process waits for the others at the start: machines do not boot at the same time."""

_TF_CONFIG_EXAMPLE = (
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Cluster:
    """What TF_CONFIG says.

    Attributes:
        addresses: `host:port` of every process, the chief's first.
        index: Which of them this one is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def size(self) -> int:
        """Number of processes."""
        return len(self.addresses)


def read_cluster(text: str | None) -> Cluster:
    """Reads TF_CONFIG, None if it is not set.

    Raises:
        ValueError: If it does not describe a cluster of workers, or not which of them this is.
    """

    def wrong(problem: str) -> ValueError:
        return ValueError(f"TF_CONFIG {problem}; expected the likes of {_TF_CONFIG_EXAMPLE}")

    if not text:
        raise wrong("is not set, which --strategy multiworker needs in every process")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise wrong(f"is not JSON ({error})") from error
    cluster = config.get("cluster") if isinstance(config, dict) else None
    task = config.get("task") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise wrong('has no "cluster" or no "task"')
    unknown = sorted(set(cluster) - {"chief", "worker"})
    if unknown:
        raise wrong(f"has the job {unknown[0]!r}; only chief and worker can train")
    jobs = {name: cluster[name] for name in ("chief", "worker") if name in cluster}
    for name, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            raise wrong(f"has {addresses!r} as the addresses of {name}, not a list of host:port")
    if len(jobs.get("chief", ())) > 1:
        raise wrong("has more than one chief")
    addresses = tuple(address for name in jobs for address in jobs[name])
    if not addresses or len(set(addresses)) < len(addresses):
        raise wrong("has no address" if not addresses else "has one address twice")
    kind, index = task.get("type"), task.get("index")
    if kind not in jobs or type(index) is not int or not 0 <= index < len(jobs[kind]):
        counts = ", ".join(f"{name} 0 to {len(jobs[name]) - 1}" for name in jobs if jobs[name])
        raise wrong(f"says this is {kind} {index!r}, and the cluster has {counts}")
    first = 0 if kind == "chief" else len(jobs.get("chief", ()))
    return Cluster(addresses, first + index)


def _is_address(text: object) -> bool:
    host, colon, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host and colon and port.isdigit() and 0 < int(port) < 65536)


@dataclass(frozen=True)
class Distribution:
    """Where a run computes: this process' part in it.

    Attributes:
        strategy: The `tf.distribute.Strategy`; None on one device.
        replicas: Devices in all processes.
        processes: Number of processes.
        process: Which one this is.
    """

    strategy: "tf.distribute.Strategy | None" = None
    replicas: int = 1
    processes: int = 1
    process: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder; the others only compute."""
        return self.process == 0

    def local_part(self, batch_size: int) -> tuple[int, int]:
        """Returns the first sample of a global batch that is this process', and how many are.

        Raises:
            ValueError: If the replicas cannot share the batch equally.
        """
        check_batch_size(batch_size, self.replicas)
        count = batch_size // self.processes
        return self.process * count, count

    def describe(self) -> str:
        """Returns a line for the log."""
        line = f"{self.replicas} replicas"
        if self.processes > 1:
            writes = "writes the run folder" if self.is_chief else "writes nothing"
            line += f" in {self.processes} processes; number {self.process}, {writes}"
        return line

    def require_agreement(self, what: Mapping[str, Any]) -> None:
        """Compares JSON-like values with the other processes'; all of them have to call this.

        Raises:
            ValueError: Naming the first key that is not the same everywhere, in every process.
        """
        import tensorflow as tf

        if self.processes == 1:
            return
        digests = [
            int.from_bytes(hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()[:4])
            for value in what.values()
        ]
        row = tf.one_hot(self.process, self.processes, dtype=tf.int64)[:, None]
        table = self._sum(row * tf.constant(digests, tf.int64)).numpy()
        for column, (key, value) in enumerate(what.items()):
            others = [n for n in range(self.processes) if table[n, column] != table[0, column]]
            if others:
                raise ValueError(
                    f"the processes of TF_CONFIG do not train the same: {key} of number "
                    f"{others[0]} is not that of number 0 (number {self.process} has "
                    f"{reprlib.repr(value)})"
                )

    def wait(self) -> None:
        """Returns when every process has called this."""
        import tensorflow as tf

        if self.processes > 1:
            self._sum(tf.ones((), tf.int64)).numpy()

    def _sum(self, value: "tf.Tensor") -> "tf.Tensor":
        import tensorflow as tf

        assert self.strategy is not None
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)


def check_strategy(name: str, replicas: int | None) -> None:
    """Raises ValueError on an unknown strategy, or replicas that do not go with it."""
    if name not in STRATEGIES:
        raise ValueError(f"--strategy must be one of {', '.join(STRATEGIES)}, got {name}")
    if replicas is not None and name != "mirrored":
        raise ValueError(f"--replicas goes with --strategy mirrored, not with {name}")
    if replicas is not None and replicas < 1:
        raise ValueError(f"--replicas must be at least 1, got {replicas}")


def check_batch_size(batch_size: int, replicas: int) -> None:
    """Raises ValueError if the replicas cannot share the batch equally."""
    if batch_size % replicas:
        below, above = batch_size // replicas * replicas, -(-batch_size // replicas) * replicas
        choices = f"{below} or {above}" if below else f"{above}"
        raise ValueError(
            f"--batch-size is that of all replicas together and must be a multiple of their "
            f"number, {replicas}: {batch_size} is not, {choices} would be"
        )


def open_distribution(
    name: str,
    replicas: int | None = None,
    cluster: Cluster | None = None,
    wait_seconds: float = WAIT_SECONDS,
) -> Distribution:
    """Opens the devices; with `multiworker`, waits for the other processes.

    Args:
        name: One of `STRATEGIES`.
        replicas: For `mirrored`, the number of devices: GPUs or, without any, parts that the
            processor is divided into, which is no faster and serves to test. None for every GPU, or
            two parts.
        cluster: For `multiworker`, from `read_cluster`.
        wait_seconds: After it this process is killed: TensorFlow's wait cannot be ended otherwise.

    Raises:
        ValueError: On an unknown name or more devices than there are.
        RuntimeError: If the processor is in use and cannot be divided any more.
        tf.errors.OpError: If the other processes cannot be reached.
    """
    import tensorflow as tf

    check_strategy(name, replicas)
    if name == "none":
        return Distribution()
    if name == "multiworker":
        assert cluster is not None
        with _ending_after(wait_seconds, cluster):
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        return Distribution(strategy, strategy.num_replicas_in_sync, cluster.size, cluster.index)
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and replicas is not None and replicas > len(gpus):
        raise ValueError(f"--replicas {replicas}: there are {len(gpus)} GPUs here")
    if gpus:
        devices = [f"/gpu:{index}" for index in range(replicas or len(gpus))]
    else:
        devices = [f"/cpu:{index}" for index in range(replicas or 2)]
        _divide_processor(len(devices))
    # Named, because without names the strategy would look into TF_CONFIG.
    strategy = tf.distribute.MirroredStrategy(devices)
    return Distribution(strategy, strategy.num_replicas_in_sync)


@contextlib.contextmanager
def _ending_after(seconds: float, cluster: Cluster) -> Iterator[None]:
    others = [each for n, each in enumerate(cluster.addresses) if n != cluster.index]
    message = (
        f"musical-fit: error: waited {seconds:g} seconds for the other processes of TF_CONFIG, "
        f"{', '.join(others)}; start the same command on every machine"
    )
    # A process of its own: TensorFlow waits with the interpreter's lock, so neither a thread nor a
    # signal's handler of this one would run.
    watch = (
        "import os, signal, sys, time; time.sleep(float(sys.argv[1]))\n"
        "if os.getppid() == int(sys.argv[2]):\n"
        "    print(sys.argv[3], file=sys.stderr, flush=True)\n"
        "    os.kill(int(sys.argv[2]), signal.SIGKILL)\n"
    )
    arguments = [sys.executable, "-c", watch, str(seconds), str(os.getpid()), message]
    with subprocess.Popen(arguments) as watcher:
        try:
            yield
        finally:
            watcher.kill()


def _divide_processor(parts: int) -> None:
    import tensorflow as tf

    (processor,) = tf.config.list_physical_devices("CPU")
    configuration = [tf.config.LogicalDeviceConfiguration() for _ in range(parts)]
    try:
        tf.config.set_logical_device_configuration(processor, configuration)
    except RuntimeError:  # TensorFlow has started
        found = len(tf.config.list_logical_devices("CPU"))
        if found < parts:
            raise RuntimeError(
                f"the processor is in use as {found} device(s) and cannot be divided into {parts} "
                "any more; do it at the start of the process"
            ) from None


def explain(reason: str, error: Exception, placement: Distribution) -> str:
    """Returns what an error of TensorFlow means for a run on several devices, in one line."""
    import tensorflow as tf

    if "nccl" in reason.lower():
        return (
            f"the GPUs cannot talk to each other through NCCL ({reason}); it comes with "
            "tensorflow[and-cuda], and --replicas 1 does without"
        )
    lost = (
        *(tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError),
        *(tf.errors.InternalError, tf.errors.CancelledError),
    )
    if placement.processes > 1 and isinstance(error, lost):
        return (
            f"lost another process of TF_CONFIG ({reason}); start all of them again, with --resume"
        )
    return reason


@contextlib.contextmanager
def scope(strategy: "tf.distribute.Strategy | None") -> Iterator[None]:
    """Variables made inside the block live on every replica of a strategy, with one value."""
    if strategy is None:
        yield
        return
    import tensorflow as tf

    def first_replica(next_creator, **kwargs):
        # What a forward pass assigns (moving statistics, spectral norms, random states) is computed
        # alike by every replica. Keras leaves open which one counts, and TensorFlow insists.
        if kwargs.get("aggregation") in (None, tf.VariableAggregation.NONE):
            kwargs["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return next_creator(**kwargs)

    with strategy.scope(), tf.variable_creator_scope(first_replica):
        yield


def prepare_models(models: Iterable["keras.Model"]) -> None:
    """Makes batch normalization see the global batch, and random layers differ between replicas."""
    import keras

    for layer in _layers(models):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
        for generator in vars(layer).values():
            if isinstance(generator, keras.random.SeedGenerator):
                generator.next = functools.partial(_next_seed, generator)


def _layers(models: Iterable["keras.Model"]) -> Iterator["keras.layers.Layer"]:
    import keras

    for model in models:
        yield model
        if isinstance(model, keras.layers.Wrapper):
            yield from _layers([model.layer])
        yield from _layers(getattr(model, "layers", ()))


def _next_seed(generator: "keras.random.SeedGenerator", ordered: bool = True) -> "tf.Tensor":
    """The generator's next seed, mixed with the replica's number; replica 0 keeps it as it is."""
    import keras
    import tensorflow as tf

    seed = keras.random.SeedGenerator.next(generator, ordered)
    context = tf.distribute.get_replica_context()
    if context is None:
        return seed
    # An odd multiple, so that no replica's seed is the neighbor of another generator's.
    replica = tf.cast(context.replica_id_in_sync_group, seed.dtype)
    return seed + tf.stack([replica * tf.constant(0x1E3779B9, seed.dtype), tf.zeros_like(replica)])
