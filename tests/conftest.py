"""What every test shares: TensorFlow's threads and log level.

The environment has to be set before TensorFlow is imported for the first time, so this is not a
fixture. Nothing else is shared: what a file of tests needs, it makes itself.
"""

import os

from musical_tf import onnx_runtime

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
# One operation at a time: tests that compare bits need sums of gradients in one order.
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
onnx_runtime.disable_telemetry()  # also for the processes that tests start
