"""The project's version, in the one place that knows it; `setup.cfg` reads it from here."""

__version__ = "0.1.0"
