"""The error of an export."""


class ExportError(RuntimeError):
    """The export itself failed; nothing was written."""
