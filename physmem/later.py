# SPDX-License-Identifier: GPL-2.0-only
"""numpy, imported when something of it is used: its import takes longer than most of what is asked of a dump.

What every verb needs to open an image imports it from here, ::

    if TYPE_CHECKING:
        import numpy as np
        import numpy.typing as npt
    else:
        from physmem.later import np

and does without it where there are few numbers.
"""

from __future__ import annotations

import sys
from types import ModuleType

__all__ = ["np"]


class _Later(ModuleType):
    """Stands in for a module: imports it when it is first asked for an attribute, each of which it keeps."""

    def __getattr__(self, name: str) -> object:
        __import__(self.__name__)
        value = getattr(sys.modules[self.__name__], name)
        setattr(self, name, value)
        return value


np = _Later("numpy")
