"""How a call passes its parameters: leading dimensions of several parameters."""

from __future__ import annotations

import re

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import conediff as cd
from conediff.layer.calls import batch_shape
from conediff.layer.maps import ParameterSpec

OWN = {"p": (), "q": (2,), "R": (1, 2)}
SPECS = [ParameterSpec(name, shape) for name, shape in OWN.items()]
LEADS = st.lists(st.sampled_from((1, 2, 3)), max_size=3).map(tuple)


def expected(leads):
    """The batch shape, or None: NumPy's rule, for parameters with equally many leading dimensions."""
    some = [lead for lead in leads if lead]
    try:
        return np.broadcast_shapes(*some) if len(set(map(len, some))) <= 1 else None
    except ValueError:
        return None


@given(st.tuples(LEADS, LEADS, LEADS))
def test_leading_dimensions_go_together_if_there_are_equally_many_or_none(leads):
    shapes = [lead + spec.shape for lead, spec in zip(leads, SPECS, strict=True)]
    if (batch := expected(leads)) is not None:
        assert batch_shape(SPECS, shapes) == batch
        return
    with pytest.raises(ValueError, match="Inconsistent batch sizes") as caught:
        batch_shape(SPECS, shapes)
    message = str(caught.value)
    assert all(f"{name!r} {shape}" in message for name, shape in zip(OWN, shapes, strict=True))
    if "Squeeze" in message:
        for axes, name in re.findall(r"ax[ie]s ([\d and]*) of '(\w)'", message):
            k = list(OWN).index(name)
            shapes[k] = np.empty(shapes[k]).squeeze(tuple(map(int, axes.split(" and ")))).shape
        batch_shape(SPECS, shapes)


@given(st.tuples(LEADS, LEADS))
def test_a_squeeze_is_named_wherever_one_helps(leads):
    """Of two parameters: some of the deeper one's axes of 1 removed, and they go together."""
    if {len(leads[0]), len(leads[1])} & {0} or len(leads[0]) == len(leads[1]):
        return
    short, deep = sorted(leads, key=len)
    removed = {tuple(np.delete(deep, gone)) for gone in np.flatnonzero(np.array(deep) == 1)}
    if len(deep) - len(short) == 2:
        removed = {tuple(np.delete(rest, g)) for rest in removed for g in np.flatnonzero(np.array(rest) == 1)}
    helps = any(expected((short, tuple(map(int, rest)))) is not None for rest in removed)
    shapes = [lead + spec.shape for lead, spec in zip(leads, SPECS[:2], strict=True)]
    with pytest.raises(ValueError, match="Squeeze ax[ie]s" if helps else "with size 1 where"):
        batch_shape(SPECS[:2], shapes)


def test_a_scalar_parameter_with_a_feature_axis_beside_a_vector():
    """As a network with one output gives it: 256 rows, not 65,536."""
    x, p, q = cp.Variable(2), cp.Parameter(name="p"), cp.Parameter(2, name="q")
    layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - q) + p * cp.sum(x))), [p, q], [x])
    with pytest.raises(ValueError, match=r"Squeeze axis 1 of 'p', to shape \(256,\)\."):
        layer(np.ones((256, 1)), np.ones((256, 2)))
    assert layer(np.ones((256, 1)), np.ones(2))[0].shape == (256, 1, 2)


def test_unknown_sizes():
    """As Keras has them while a model is built."""
    assert batch_shape(SPECS, [(None,), (None, 2), (1, 2)]) == (None,)
    assert batch_shape(SPECS[:2], [(None,), (4, 2)]) == (4,)
    with pytest.raises(ValueError, match=r"axis 1 of 'p', to shape \(None,\)"):
        batch_shape(SPECS[:2], [(None, 1), (None, 2)])
