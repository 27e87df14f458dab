# SPDX-License-Identifier: GPL-2.0-only
"""The documentation site: ``make docs``."""

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

# The rooms' sources are what is documented, whether or not they are compiled here.
os.environ["PHYSMEM_ENGINE"] = "interpreted"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

project = "physmem and kernelmm"
release = version = installed("physmem")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.apidoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"{project} {release}"
exclude_patterns = ["notebooks"]

apidoc_modules = [
    {"path": f"../{package}", "destination": f"api/{package}", "max_depth": 2, "module_first": True}
    for package in ("physmem", "kernelmm")
]
# What a package hands on is described where it is defined.
autodoc_default_options = {"members": True, "show-inheritance": True, "ignore-module-all": True}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
myst_heading_anchors = 3
# Fields named ``type``, of several classes, beside the built-in one.
suppress_warnings = ["ref.python"]
