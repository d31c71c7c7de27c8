"""Properties that hold for any input.

`python -m pytest tests/properties --hypothesis-profile fuzz` tries some 20,000 new inputs.
"""

from datetime import timedelta

from hypothesis import HealthCheck, settings

PROFILES = {
    "test": {"max_examples": 100, "derandomize": True, "deadline": None},
    # A case of more than 20 seconds fails.
    "fuzz": {"max_examples": 125, "derandomize": False, "deadline": timedelta(seconds=20)},
}
for name, options in PROFILES.items():
    checks = list(HealthCheck)
    settings.register_profile(name, database=None, suppress_health_check=checks, **options)
if settings.get_current_profile_name() not in PROFILES:
    settings.load_profile("test")
