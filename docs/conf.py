"""How the site is built: ``python -m sphinx -W -b html docs docs/_build/html``."""

from __future__ import annotations

import inspect
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from sphinx.util import logging

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "adapters")]
# Before TensorFlow is imported by anything that autodoc or the gallery imports.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TQDM_DISABLE", "1")  # progress bars are for terminals

import conediff  # noqa: E402

project = "conediff"
author = "The conediff developers"
copyright = author
version = release = conediff.__version__

extensions = [
    "matplotlib.sphinxext.plot_directive",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
# sphinx-gallery runs the scripts of gallery and writes its pages to auto_gallery.
exclude_patterns = ["_build", "gallery"]
suppress_warnings = ["config.cache"]
default_role = "py:obj"
nitpicky = True
# Docstrings give types in words ("array, shape (n,)"), and Sphinx takes each word for a class.
nitpick_ignore_regex = [("py:class", ".*")]

html_theme = "furo"
html_title = "conediff"
html_static_path = ["_static"]
html_css_files = ["conediff.css"]
html_copy_source = False

myst_enable_extensions = ["amsmath", "attrs_block", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types and shapes
napoleon_google_docstring = False
napoleon_use_rtype = False

plot_formats = [("svg", 100)]
plot_html_show_formats = False
plot_html_show_source_link = False

# The order in which examples are shown.
ORDER = [
    "qp_layer",
    "softmax",
    "sparsemax",
    "polytope",
    "relu_layers",
    "monotone_regression",
    "lipschitz_critic",
    "meta_learning",
    "keras_constraints",
    "keras_digits",
    "lasso",
    "svm",
    "quantile_regression",
    "tuning",
    "newton_penalties",
    "signal_denoising",
    "data_poisoning",
    "sensitivity",
    "resource_allocation",
    "portfolio",
    "control_policy",
    "predictive_control",
    "supply_chain",
    "vehicle_path",
    "consumer_demand",
    "optimal_transport",
    "stiffness",
    "power_cones",
    "geometric_program",
    "psd_parameter",
    "duals_of_every_cone",
    "infeasible_element",
]


# What examples import beyond the docs extra: name, and the packages that it takes.
OPTIONAL = {
    "torch": ("torch",),
    "keras": ("keras", "tensorflow"),
    "jax": ("jax",),
    "mlx": ("mlx",),
    "skfolio": ("skfolio",),
}
# Sections of the API page that need one of them.
SECTIONS = {"PyTorch": "torch", "Keras": "keras", "JAX": "jax", "MLX": "mlx"}


def missing_packages(is_there=find_spec):
    """Return the names in OPTIONAL that cannot be imported."""
    return [name for name, packages in OPTIONAL.items() if not all(map(is_there, packages))]


def skipped_examples(is_there=find_spec):
    """Return, for everything optional that is not installed, the names of the examples that need it."""
    missing = missing_packages(is_there)
    found = {}
    for script in sorted((ROOT / "docs" / "gallery").rglob("*.py")):
        text = script.read_text(encoding="utf-8")
        for name in missing:
            if re.search(rf"^(import|from) {name}\b", text, flags=re.MULTILINE):
                found.setdefault(name, []).append(script.stem)
    return found


SKIPPED = skipped_examples()


def executed(skipped):
    """Return the pattern of the scripts that sphinx-gallery runs. It shows the others without a run."""
    names = "|".join(sorted({name for names in skipped.values() for name in names}))
    return rf"^(?!.*[\\/](?:{names})\.py$).*\.py$" if names else r"\.py$"


def say_what_was_skipped(app, exception):
    """Warn at the end, where it is read; with -W a skipped example is an error."""
    for name, examples in SKIPPED.items():
        said = "shown without being run, because %s cannot be imported: %s"
        logging.getLogger(__name__).warning(said, " and ".join(OPTIONAL[name]), ", ".join(examples))


def leave_out_sections(app, docname, source):
    """In the API page, put a sentence in the place of what cannot be imported, and warn."""
    if docname != "api":
        return
    for section, name in SECTIONS.items():
        block = re.search(rf"^## {section}\n+(.*?)(?=^## )", source[0], flags=re.MULTILINE | re.DOTALL)
        if block and name in missing_packages():
            instead = f"{section} was not installed when this site was built.\n\n"
            source[0] = source[0].replace(block[1], instead)
            said = "the section %s of the API page is left out, because %s cannot be imported"
            logging.getLogger(__name__).warning(said, section, " and ".join(OPTIONAL[name]))


class InOrder:
    """Sort the examples of one section in ORDER; an example that is missing there is an error."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, name):
        return ORDER.index(name.removesuffix(".py"))

    def __repr__(self):
        return "<InOrder>"


sphinx_gallery_conf = {
    "examples_dirs": ["gallery"],
    "gallery_dirs": ["auto_gallery"],
    "filename_pattern": executed(SKIPPED),
    "subsection_order": ["gallery/layers", "gallery/fitting", "gallery/decisions", "gallery/cones"],
    "within_subsection_order": InOrder,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "min_reported_time": 5,
    "only_warn_on_example_error": False,
    "backreferences_dir": None,
}


as_written: dict[str, list[str]] = {}


def keep_properties(app, what, name, obj, options, lines):
    """Save the docstrings of properties: napoleon takes all text before a colon for a type."""
    if what == "property":
        as_written[name] = list(lines)


def restore_properties(app, what, name, obj, options, lines):
    """Restore the docstrings of properties after napoleon."""
    if name in as_written:
        lines[:] = as_written.pop(name)


def escape_stars(app, what, name, obj, options, lines):
    """Escape the stars of shapes such as (*batch, *shape), which reStructuredText reads as emphasis."""
    for k, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = line.split("``")
            parts[::2] = [re.sub(r"(?<=[(, ])\*(?=\w)(?!\w[\w ]*\*)", r"\*", part) for part in parts[::2]]
            lines[k] = "``".join(parts)


def own_signature(app, what, name, obj, options, signature, returns):
    """Show the arguments of a Keras layer's constructor: the signature of Keras's ``__new__`` hides them."""
    if what == "class" and signature == "(*args, **kwargs)":
        _, *rest = inspect.signature(obj.__init__).parameters.values()
        rest = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in rest]
        return str(inspect.Signature(rest)), returns
    return None


def setup(app):
    """Connect the functions above to run before and after napoleon, whose priority is 500."""
    app.connect("autodoc-process-signature", own_signature)
    app.connect("autodoc-process-docstring", escape_stars, priority=390)
    app.connect("autodoc-process-docstring", keep_properties, priority=400)
    app.connect("autodoc-process-docstring", restore_properties, priority=550)
    app.connect("source-read", leave_out_sections)
    app.connect("build-finished", say_what_was_skipped)
