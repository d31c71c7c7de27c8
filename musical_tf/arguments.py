"""The parser of the command lines that read and write files. Standard library only."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """Refuses empty values: an unset shell variable would stand for the working directory.

    Attributes:
        texts: Options that are no paths; their program checks them.
    """

    texts: frozenset[str] = frozenset()

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """See `argparse`."""
        args = sys.argv[1:] if args is None else list(args)
        option = "an argument"
        for word in args:
            value = word
            if word.startswith("-"):
                option, sign, value = word.partition("=")
                if not sign:
                    continue
            if not value.strip() and option not in self.texts:
                self.error(f"{option} must have a value, got {value!r}; is a variable unset?")
        return super().parse_known_args(args, namespace)
