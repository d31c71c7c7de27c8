"""Measures what was trained: on which photographs, against what, and how it is shown."""
