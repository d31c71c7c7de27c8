"""Helpers for the protocol buffers of ONNX."""


def copy(model):
    """Copies a message with all that it holds."""
    duplicate = type(model)()
    duplicate.CopyFrom(model)
    return duplicate


def replace(repeated, values) -> None:
    """Replaces what a repeated field of a protocol buffer holds."""
    kept = [value if isinstance(value, str) else copy(value) for value in values]
    del repeated[:]  # empties the messages it held, hence the copies
    repeated.extend(kept)
