"""The command line and the demo."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

from conediff.__main__ import main
from conediff.cli import info as installed


def test_help_has_commands_examples_and_exit_codes(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for word in ("demo", "info", "check", "examples:", "exit codes:", "python -m conediff check"):
        assert word in out


def test_info_tells_versions_threads_and_frameworks(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for start in ("conediff 0.", "Python 3", "threads: ", "BLAS: ", "scs 3", "cvxpy 1", "NumPy: usable"):
        assert f"\n{start}" in f"\n{out}", start
    for framework in installed.FRAMEWORKS:
        (line,) = [line for line in out.splitlines() if line.startswith(framework.name)]
        assert ("usable, from" if framework.installed else "not installed; pip install") in line


def test_info_fails_where_a_framework_is_broken(monkeypatch, capsys):
    # Installed, but its adapter cannot be imported.
    broken = installed.Framework("Abacus", "json", "conediff.no_such_adapter")
    monkeypatch.setattr(installed, "FRAMEWORKS", (broken,))
    assert main(["info"]) == 1
    assert "Abacus: NOT usable: ModuleNotFoundError: No module named" in capsys.readouterr().out


def test_info_fails_where_something_required_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(installed, "REQUIRED", ("numpy", "no-such-package"))
    monkeypatch.setattr(installed, "FRAMEWORKS", ())
    assert main(["info"]) == 1
    assert "no-such-package MISSING: pip install no-such-package" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "invalid choice: 'fly'"),
        (["demo", "--steps", "0"], "expected a whole number from 1 on, got '0'"),
        (["demo", "--steps", "many"], "expected a whole number"),
        (["demo", "--seed", "-1"], "expected a whole number from 0 on, got '-1'"),
        (["demo", "--output", "no/such/folder/a.png"], "there is no folder no/such/folder"),
        (["info", "more"], "unrecognized arguments: more"),
    ],
)
def test_wrong_usage_has_exit_code_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_demo_refuses_what_is_no_picture_before_it_works(capsys):
    pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--output", "picture.xyz"])
    assert caught.value.code == 2
    assert "picture.xyz does not end in a picture format: " in capsys.readouterr().err


def test_demo_without_its_packages_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["demo"]) == 1
    assert 'pip install ".[demo]"' in capsys.readouterr().err


def test_demo_converges_beats_the_grid_on_the_test_studies_and_saves_a_picture(tmp_path, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    from conediff.cli.demo import main as demo

    losses = demo(tmp_path / "picture.png")
    assert losses["tuned"] < 0.99 * losses["grid"]
    assert losses["tuned_test"] < 0.97 * losses["grid_test"]
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert re.search(
        r"^converged after \d+ steps: .*the largest slope that the bounds leave is", printed, re.M
    )
    assert printed.count("% below the grid's") == 2


def test_demo_says_if_it_did_not_converge(tmp_path, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    from conediff.cli.demo import main as demo

    assert not demo(tmp_path / "picture.png", steps=2)["converged"]
    assert "NOT converged: stopped after 2 steps, the limit" in capsys.readouterr().out


def test_demo_says_which_of_two_losses_is_lower():
    from conediff.cli.demo import compared

    assert compared(0.9, 1.0) == "10.0% below"
    assert compared(1.1, 1.0) == "10.0% above"


def test_demo_studies_share_no_patient():
    pytest.importorskip("sklearn")
    import numpy as np

    from conediff.cli.demo import load

    tuning, test, _ = load()
    seen = [
        {row.tobytes() for X in (part.X, part.X_new) for row in X.reshape(-1, 10)} for part in (tuning, test)
    ]
    assert not seen[0] & seen[1]
    for study in range(len(tuning.y)):
        both = np.concatenate([tuning.X[study], tuning.X_new[study]])
        assert len({row.tobytes() for row in both}) == len(both)


def test_demo_gradient_against_differences():
    pytest.importorskip("sklearn")
    import numpy as np

    from conediff.cli.demo import elastic_net, load, loss_and_gradient

    studies, _, names = load()
    layer = elastic_net(len(names))
    theta = np.linspace(-5, -1, 11)
    gradient = loss_and_gradient(theta, layer, studies)[1]
    h = 1e-6
    for k in range(11):
        step = h * (np.arange(11) == k)
        ends = [loss_and_gradient(theta + sign * step, layer, studies)[0] for sign in (1, -1)]
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-7)


@pytest.mark.parametrize(
    ("module", "missing", "said"),
    [
        ("torch", "torch", r"PyTorch is not installed: pip install torch, or .\.\[torch\]. in a checkout"),
        ("torch", "other", "No module named 'other'"),
        (
            "tensorflow",
            "keras",
            r"Keras is not installed: pip install keras tensorflow, or .\.\[tensorflow\]. in a checkout",
        ),
        ("jax", "jax", r"JAX is not installed: pip install jax, or .\.\[jax\]. in a checkout"),
        ("jax", "other", "No module named 'other'"),
        ("mlx", "mlx", r"MLX is not installed: pip install mlx .*, or .\.\[mlx\]. in a checkout"),
        ("mlx", "other", "No module named 'other'"),
        ("tensorflow", "other", "Keras is installed, but cannot import other.*KERAS_BACKEND"),
    ],
)
def test_a_missing_framework_is_named(module, missing, said, monkeypatch):
    framework = {"tensorflow": "keras"}.get(module, module)

    class Missing:
        """Finds the framework; importing it needs what is missing."""

        def find_spec(self, name, path=None, target=None):
            if name == framework:
                raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    for name in [name for name in sys.modules if name == framework or name == f"conediff.{module}"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=said) as caught:
        importlib.import_module(f"conediff.{module}")
    assert caught.value.name == missing


def test_import_is_light():
    heavy = ("cvxpy", "torch", "tensorflow", "keras", "jax", "mlx")
    code = f"import sys, conediff; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
