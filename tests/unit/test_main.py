"""The command line and the demo."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conediff.__main__ import main


def test_help_lists_the_commands(capsys):
    assert main([]) == 0
    assert "demo" in capsys.readouterr().out


def test_info_tells_versions(capsys):
    assert main(["info"]) == 0
    assert "scs 3" in capsys.readouterr().out


def test_unknown_command_is_an_error():
    with pytest.raises(SystemExit) as caught:
        main(["fly"])
    assert caught.value.code == 2


def test_demo_beats_the_grid_and_saves_a_picture(tmp_path, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    from conediff.demo import main as demo

    losses = demo(tmp_path / "picture.png")
    assert losses["tuned"] < 0.97 * losses["grid"]
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert "below the grid's best" in capsys.readouterr().out


def test_demo_gradient_against_differences():
    pytest.importorskip("sklearn")
    import numpy as np

    from conediff.demo import elastic_net, load, loss_and_gradient

    split = load()
    layer = elastic_net(*split.train)
    theta = np.linspace(-6, -2, 11)
    gradient = loss_and_gradient(theta, layer, split)[1]
    h = 1e-6
    for k in range(11):
        step = h * (np.arange(11) == k)
        ends = [loss_and_gradient(theta + sign * step, layer, split)[0] for sign in (1, -1)]
        assert gradient[k] == pytest.approx((ends[0] - ends[1]) / (2 * h), abs=1e-7)


def test_import_is_light():
    heavy = ("cvxpy", "torch", "tensorflow", "keras")
    code = f"import sys, conediff; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
