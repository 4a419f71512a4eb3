"""Inputs of the fuzz tests: arrays of any type and layout, dictionaries of cones, settings."""

import math

import numpy as np
import scipy.sparse as sp
from hypothesis import strategies as st

FORMATS = ("csc", "csr", "coo", "bsr", "lil", "dok", "dia")
DTYPES = ("f8", "f4", "f2", "g", ">f8", "i8", "i1", "u2", "bool", "O", "U8", "c16", "M8[s]", "V8")
# What no argument can be.
JUNK = st.sampled_from(
    [
        None,
        "x",
        b"x",
        "",
        1j,
        object,
        (),
        [],
        {},
        {1},
        [None],
        [[1], [1, 2]],
        [["a"]],
        math.nan,
        math.inf,
        -1,
        0,
        2**31,
        2**63,
        10**400,
        1e308,
        5e-324,
        True,
        np.float32(0.5),
        np.array(3),
        np.array([]),
        np.zeros((0, 0)),
        np.zeros((2, 2, 2)),
        np.array([None, 1.0]),
        np.array(["1"]),
        np.ma.masked,
        np.ma.array([1.0], mask=[True]),
        np.datetime64("nat"),
        range(3),
        slice(1),
        lambda *_: "nan",
        int,
        np.float64,
        np.int8(3),
        [math.nan],
    ]
)
ENTRIES = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-3, 3, allow_subnormal=False),
    st.sampled_from([0.0, -0.0, 1e-9, 1e9, -1e6, 1e-300]),
)
WILD = st.sampled_from([math.nan, math.inf, -math.inf, 1e308, 5e-324, -1e200])


def _scaled(values, wild):
    if wild is not None and values.size:
        values.flat[wild[0] % values.size] = wild[1]
    return values


def numbers(shape, wild=True):
    """Arrays of float64 of this shape; with ``wild`` one entry may be NaN, infinite or huge."""
    size = math.prod(shape)
    odd = st.tuples(st.integers(0, 100), WILD)
    one = st.one_of(st.none(), st.none(), st.none(), odd) if wild else st.none()
    entries = st.lists(ENTRIES, min_size=size, max_size=size)
    return st.builds(lambda flat, odd: _scaled(np.array(flat, float).reshape(shape), odd), entries, one)


@st.composite
def laid_out(draw, array):
    """The array in some type, order, layout or container; what has no such form comes as it is."""
    form = draw(
        st.sampled_from(["plain"] * 6 + ["dtype", "F", "strided", "reversed", "frozen", "list", "ma"])
    )
    with np.errstate(all="ignore"):
        if form == "dtype":
            try:
                return array.astype(draw(st.sampled_from(DTYPES)))
            except (TypeError, ValueError, OverflowError):
                return array
        if form == "strided" and array.ndim:
            wide = np.full([2 * k for k in array.shape], 7.0)
            view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
            view[...] = array
            return view
    if form == "F":
        return np.asfortranarray(array)
    if form == "reversed" and array.ndim:
        return np.flip(np.ascontiguousarray(np.flip(array)))
    if form == "frozen":
        frozen = array.copy()
        frozen.setflags(write=False)
        return frozen
    if form == "list":
        return array.tolist()
    return np.ma.array(array) if form == "ma" else array


@st.composite
def matrices(draw, shape, wild=True):
    """Matrices: dense ones in any layout, and sparse ones of every format; vectors are dense."""
    array = draw(numbers(shape, wild))
    if len(shape) != 2 or draw(st.booleans()) or 0 in shape:
        return draw(laid_out(array))
    make = draw(st.sampled_from([sp.coo_matrix, sp.coo_array]))
    stored = draw(st.booleans())
    rows, columns = np.indices(shape) if stored else np.nonzero(array)
    sparse = make((array[rows, columns].ravel(), (rows.ravel(), columns.ravel())), shape=shape)
    result = sparse.asformat(draw(st.sampled_from(FORMATS)))
    if draw(st.integers(0, 5)) == 0:
        with np.errstate(all="ignore"):
            result = result.astype(draw(st.sampled_from(["f4", "i4", "bool", "c16"])))
    return result


@st.composite
def cones(draw, most=12):
    """A dictionary of cones with at most ``most`` rows, and their number."""
    found, rows, sizes = {}, 0, {"q": lambda k: k, "s": lambda k: k * (k + 1) // 2, "cs": lambda k: k * k}
    for key in draw(st.permutations(["z", "l", "box", "q", "s", "cs", "ep", "ed", "p"])):
        left = most - rows
        if left <= 0 or draw(st.booleans()):
            continue
        if key in ("z", "l"):
            found[key] = draw(st.integers(0, min(3, left)))
            rows += found[key]
        elif key in ("ep", "ed"):
            found[key] = draw(st.integers(0, min(2, left // 3)))
            rows += 3 * found[key]
        elif key == "p":
            exponent = st.sampled_from([0.5, 0.3, -0.6, 1e-3, 0.999, -0.02])
            found[key] = draw(st.lists(exponent, max_size=min(2, left // 3)))
            rows += 3 * len(found[key])
        elif key == "box":
            lower = draw(st.lists(st.sampled_from([-1.0, -math.inf, 0.0, -1e20]), max_size=min(3, left - 1)))
            found["bl"], found["bu"] = lower, [draw(st.sampled_from([0.0, 1.0, math.inf])) for _ in lower]
            rows += 1 + len(lower) if lower else 0
        else:
            chosen = draw(st.lists(st.integers(1, 3), max_size=2))
            while sum(map(sizes[key], chosen)) > left:
                chosen.pop()
            found[key] = chosen
            rows += sum(map(sizes[key], chosen))
    return found, rows


def any_cones(good):
    """Dictionaries of any content: the good one, or one that is spoilt, or none at all."""
    keys = st.sampled_from(["z", "l", "bl", "bu", "q", "s", "cs", "ep", "ed", "p", "f", "x", 3, None, ("z",)])
    values = st.one_of(JUNK, st.lists(JUNK, max_size=2), st.integers(-2, 3), st.floats(-2, 3))
    spoilt = st.dictionaries(keys, values, max_size=3).map(lambda more: {**good, **more})
    return st.one_of(st.just(good), st.just(good), spoilt, JUNK)


SETTINGS = st.dictionaries(
    st.sampled_from(
        [
            "tol",
            "refine",
            "solver",
            "method",
            "threads",
            "on_failure",
            "max_iters",
            "eps",
            "eps_abs",
            "alpha",
            "scale",
            "rho_x",
            "normalize",
            "acceleration_lookback",
            "linear_solver",
            "max_iter",
            "tol_feas",
            "nosuch",
            "time_limit_secs",
            "executor",
            "acceleration_interval",
            "acceleration_relaxation",
            "adaptive_scale",
        ]
    ),
    st.one_of(
        JUNK,
        st.sampled_from(["scs", "clarabel", "direct", "lsqr", "dense", "nan", "raise", "zero_grad", "qdldl"]),
        st.sampled_from([1e-3, 1e-6, 1e-8, 0.1, 1.5, 1, 2, 5, 50, 1000, False]),
    ),
    max_size=2,
)
