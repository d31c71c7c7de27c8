"""Properties that hold for any input; `python -m benchmarks.fuzz` tries the same on many more."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "test",
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("test")
