"""Registers the generators with Keras as soon as a program imports Keras, and not before.

`keras.models.load_model` finds a class of this package only after its module has been imported.
`musical_tf` itself imports no Keras, so it waits for the program's own `import keras`.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType


def register_now_or_later() -> None:
    """Imports the methods if Keras is loaded, else right after the program's import of Keras."""
    if "keras" not in sys.modules:
        sys.meta_path.insert(0, _KerasFinder())
    elif not _is_loading("keras"):
        _import_methods()


def _import_methods() -> None:
    # A module of this package that imports Keras is not complete yet; what it needs it imports.
    if any(_is_loading(name) for name in list(sys.modules) if name.startswith("musical_tf.")):
        return
    import pkgutil

    folder = Path(__file__).parent / "methods"
    try:
        for module in pkgutil.iter_modules([str(folder)]):
            importlib.import_module(f"musical_tf.methods.{module.name}")
    except Exception as error:  # the program asked for Keras only
        warnings.warn(f"musical_tf cannot register its generators: {error}", stacklevel=2)


def _is_loading(name: str) -> bool:
    return getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False)


class _KerasFinder:
    """Finds Keras where everybody finds it, and imports the methods after it.

    No subclass of `importlib.abc.MetaPathFinder`, whose import takes 6 ms of every start.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns Keras' own spec, whose loader then imports the methods at the end."""
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            sys.meta_path.insert(0, self)
            return None
        loader = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the loader's own again
            execute(module)
            # Keras is complete; its `_initializing` ends only after this function.
            _import_methods()

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
