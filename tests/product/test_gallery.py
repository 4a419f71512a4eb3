"""Every script of the gallery runs as it stands, checks its own result, and saves a picture."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
SCRIPTS = sorted(GALLERY.rglob("*.py"))
OPTIONAL = ("torch", "keras", "jax", "skfolio")


def imported(script):
    """Return the packages that a script imports, conediff's adapters under the name of their framework."""
    names = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.partition(".")[0])
    return names


@pytest.fixture
def undisturbed(tmp_path, monkeypatch):
    """Run in an empty folder, without windows and bars; put back what scripts set for themselves."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    pyplot.switch_backend("Agg")
    yield tmp_path
    pyplot.close("all")


@pytest.fixture
def torch_precision():
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def jax_precision():
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.filterwarnings("error::conediff.errors.ConediffWarning")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs_and_draws(script, undisturbed, request):
    for package in OPTIONAL:
        if package in imported(script):
            pytest.importorskip(package)
            if package in ("torch", "jax"):
                request.getfixturevalue(f"{package}_precision")
    runpy.run_path(str(script), run_name="__main__")
    (picture,) = undisturbed.glob("*.png")
    assert picture.stem == script.stem and picture.stat().st_size > 5000


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_says_what_to_expect_and_checks_it(script):
    text = script.read_text(encoding="utf-8")
    said = ast.get_docstring(ast.parse(text))
    assert re.search(r"^Learned: ", said, flags=re.MULTILINE)
    assert re.search(r"^Expect: ", said, flags=re.MULTILINE)
    assert any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text)))
    assert len(text.splitlines()) <= 110


def test_names_differ():
    assert len({script.name for script in SCRIPTS}) == len(SCRIPTS)


def test_examples_without_their_framework_are_shown_and_not_run():
    pytest.importorskip("sphinx")
    conf = runpy.run_path(str(GALLERY.parent / "conf.py"))
    for gone, package in (("torch", "torch"), ("keras", "tensorflow")):
        skipped = conf["skipped_examples"](lambda name, package=package: name != package)
        assert sorted(skipped[gone]) == sorted(script.stem for script in SCRIPTS if gone in imported(script))
        pattern = conf["executed"]({gone: skipped[gone]})
        run = [script.stem for script in SCRIPTS if re.search(pattern, str(script))]
        assert sorted(run + skipped[gone]) == sorted(script.stem for script in SCRIPTS)
    assert all(re.search(conf["executed"]({}), str(script)) for script in SCRIPTS)


def test_every_example_has_its_place():
    pytest.importorskip("sphinx")
    conf = runpy.run_path(str(GALLERY.parent / "conf.py"))
    assert sorted(conf["ORDER"]) == sorted(script.stem for script in SCRIPTS)
    sections = {f"gallery/{script.parent.name}" for script in SCRIPTS}
    assert set(conf["sphinx_gallery_conf"]["subsection_order"]) == sections
