"""Tells transformers of the type "onekv" when it is imported, so that `import onekv` need not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# Once the module on the left is imported, the function on the right is called.
_AFTER = {
    "transformers.models.auto.configuration_auto": (
        "onekv.export.model.huggingface_config",
        "register_config",
    ),
    "transformers.models.auto.modeling_auto": ("onekv.export.model.huggingface", "register_model"),
}


class _Finder:
    """Finds the modules of `_AFTER` as the other finders do, and adds the call to their loading."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name not in _AFTER:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                _register(name)

            spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec


def register_when_imported() -> None:
    """Register now with what is imported already, and later with the rest."""
    for name in _AFTER:
        if name in sys.modules:
            _register(name)
    sys.meta_path.insert(0, _Finder())


def _register(name: str) -> None:
    module, function = _AFTER[name]
    getattr(importlib.import_module(module), function)()
