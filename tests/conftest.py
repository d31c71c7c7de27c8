"""What tests share: TensorFlow's threads and log level, and the model that server tests run.

The environment has to be set before TensorFlow is imported for the first time, so this is not a
fixture.
"""

import os
import signal
import urllib.request

import pytest

from musical_tf import onnx_runtime

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
# One operation at a time: tests that compare bits need sums of gradients in one order.
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs ignore Ctrl-C, and so would the processes that tests interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["MUSICAL_CACHE"] = ""  # keep no graphs in the user's cache
onnx_runtime.disable_telemetry()  # also for the processes that tests start


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file of a tiny model."""
    from tests.serving_model import write_model

    return write_model(tmp_path_factory.mktemp("model") / "tiny model.onnx")


@pytest.fixture(scope="module")
def session(model):
    """The tiny model, opened."""
    from serving.session import InpaintingSession

    return InpaintingSession(model)


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty Keras cache and a proxy on a closed port: every download is refused at once."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(
        urllib.request, "_opener", None
    )  # it remembers the proxies it was made with
    return tmp_path / "cache" / "models"


@pytest.fixture
def eager():
    """To trace a graph takes longer than a few steps."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def compiled(eager):
    """Asked for by tests that are about the graph."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(False)
