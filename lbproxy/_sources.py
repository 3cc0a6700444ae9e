"""With ``LBPROXY_NATIVE=off``: import our modules from their sources, also where they were compiled.

Python would take a compiled module before the source that lies beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType


class SourceFinder:
    """Finds our modules that have a source; the others are left to the usual finders."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.startswith("lbproxy."):
            for folder in path or ():
                spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name, target)
                if spec is not None and spec.loader is not None:
                    return spec
        return None


def use_sources_if_told() -> None:
    """Obey ``LBPROXY_NATIVE``; called before any other of our modules is imported."""
    if os.environ.get("LBPROXY_NATIVE") == "off":
        sys.meta_path.insert(0, SourceFinder())
