"""Measurements, and the script that carries them into the README."""
