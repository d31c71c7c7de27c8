"""The parser of the command lines. Standard library only.

A shell completes their options where argcomplete is installed and registered.
"""

import argparse
import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `; did you mean 'known'?`, or nothing."""
    import difflib  # once something is wrong

    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def complete_by(action: argparse.Action, names: Iterable[str], ending: str) -> None:
    """Offers a shell names and files with an ending as values of an option."""

    def complete(prefix: str, **_: Any) -> list[str]:
        from argcomplete.completers import FilesCompleter

        return [*names, *FilesCompleter(ending)(prefix)]

    action.completer = complete  # type: ignore[attr-defined]


class Parser(argparse.ArgumentParser):
    """Refuses empty values: an unset shell variable would stand for the working directory.

    Attributes:
        texts: Options that are no paths; their program checks them.
    """

    texts: frozenset[str] = frozenset()

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """See `argparse`."""
        if isinstance(sys.stdout, io.TextIOWrapper):  # paths may hold bytes that are no text
            sys.stdout.reconfigure(errors="backslashreplace")
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

    def parse_args(self, *arguments: Any, **options: Any) -> Any:  # noqa: D102
        self._complete()
        return super().parse_args(*arguments, **options)

    def parse_intermixed_args(self, *arguments: Any, **options: Any) -> Any:  # noqa: D102
        self._complete()
        return super().parse_intermixed_args(*arguments, **options)

    def _complete(self) -> None:
        """Answers a shell that asks for completions, and ends."""
        if "_ARGCOMPLETE" in os.environ:
            import argcomplete

            argcomplete.autocomplete(self)
