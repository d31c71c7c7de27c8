"""What every test shares: TensorFlow's threads and log level, and two real photographs.

The environment has to be set before TensorFlow is imported for the first time, which is why it is not a fixture.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
