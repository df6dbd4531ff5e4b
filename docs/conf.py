"""Configuration of the documentation: Sphinx, MyST-NB and the Furo theme, built offline."""

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "rfho"
version = release = importlib.metadata.version("rfho")
author = "The RFHO authors"
copyright = "2026, The RFHO authors"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "back_links",
    "llms",
    "mathml",
    "readable_signatures",
    "recipes",
    "reference_pages",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "_ext", "reference/generated/contents.md"]

html_theme = "furo"
html_title = f"rfho {version}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
copybutton_exclude = ".linenos, .gp, .go"

# Pages are Markdown; a page with a `kernelspec` is a notebook and is run when it is built.
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

# Docstrings are reStructuredText in Google style. `name` links to what is documented under that
# name and is plain code otherwise.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = ["Cost"]
