"""Readers of collections: what tiny files state is what the programs say."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import conediff as cd
from tests.benchmarks.judge import distance
from tests.benchmarks.readers.files import files_of, name_of, read
from tests.benchmarks.readers.maros_meszaros import read_mat
from tests.benchmarks.readers.problem import ConeRows, FormatError
from tests.benchmarks.readers.sdpa import read_sdpa

INF = np.inf


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="ascii")
    return path


def feasible(program, x):
    """Whether A x + s = b with s in K, up to rounding."""
    return distance(program.cones, program.b - program.A @ x, dual=False) < 1e-12


class TestRows:
    def test_come_in_the_order_of_scs_whatever_the_order_of_adding(self):
        rows = ConeRows(1)
        rows.add("p", np.ones((3, 1)), [7.0, 8.0, 9.0], -0.25)
        rows.add("q", np.ones((2, 1)), [3.0, 4.0], 2)
        rows.add("l", np.ones((1, 1)), [2.0])
        rows.add("q", np.ones((1, 1)), [5.0], 1)
        rows.add("z", np.ones((1, 1)), [1.0])
        program = rows.program([0.0])
        assert program.cones == {"z": 1, "l": 1, "q": [2, 1], "p": [-0.25]}
        np.testing.assert_array_equal(program.b, [1, 2, 3, 4, 5, 7, 8, 9])

    def test_an_interval_has_a_row_for_each_bound_and_one_where_they_meet(self):
        rows = ConeRows(1)
        rows.add_interval(
            np.arange(1.0, 6.0)[:, None], [0, -9.999999999999998e19, -1, 2, -INF], [1, 3, 1e21, 2, INF]
        )
        program = rows.program([0.0])
        assert program.cones == {"z": 1, "l": 4}
        np.testing.assert_array_equal(program.A.toarray().ravel(), [4, 1, 2, -1, -3])
        np.testing.assert_array_equal(program.b, [2, 1, 3, 0, 1])

    def test_rows_that_do_not_fit_are_refused(self):
        with pytest.raises(FormatError, match="n = 2"):
            ConeRows(2).add("l", np.ones((1, 3)), [1.0])
        with pytest.raises(FormatError, match="no constraints"):
            ConeRows(2).program(np.zeros(2))


class TestMarosMeszaros:
    def arrays(self, **changes):
        A, P = sp.csc_matrix([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), sp.csc_matrix([[2.0, 1.0], [1.0, 4.0]])
        bounds = {"l": [[1.0], [0.0], [-1e20]], "u": [[1.0], [0.7], [1e20]]}
        return {"P": P, "q": [[1.0], [1.0]], "r": 3.0, "A": A, **bounds, **changes}

    def test_states_the_program_and_its_constant(self, tmp_path):
        scipy.io.savemat(tmp_path / "tiny.mat", self.arrays())
        problem = read_mat(tmp_path / "tiny.mat")
        assert problem.program.cones == {"z": 1, "l": 2}
        x = cd.solve(problem.program).x
        np.testing.assert_allclose(x, [0.7, 0.3], atol=1e-9)  # closed form: 0.75 without the bound
        assert problem.objective(x) == pytest.approx(0.5 * (0.98 + 0.42 + 0.36) + 1 + 3)

    def test_an_upper_triangle_is_completed(self, tmp_path):
        full, half = self.arrays(), self.arrays(P=sp.csc_matrix([[2.0, 1.0], [0.0, 4.0]]))
        for name, arrays in (("full", full), ("half", half)):
            scipy.io.savemat(tmp_path / f"{name}.mat", arrays)
        one, other = (read_mat(tmp_path / f"{name}.mat").program.P.toarray() for name in ("full", "half"))
        np.testing.assert_array_equal(one, other)

    def test_what_is_no_program_is_refused(self, tmp_path):
        scipy.io.savemat(tmp_path / "lower.mat", self.arrays(P=sp.csc_matrix([[2.0, 0.0], [1.0, 4.0]])))
        with pytest.raises(FormatError, match="neither symmetric nor upper triangular"):
            read_mat(tmp_path / "lower.mat")
        scipy.io.savemat(tmp_path / "none.mat", {"P": np.eye(2), "q": np.ones(2)})
        with pytest.raises(FormatError, match="no array A, l, u"):
            read_mat(tmp_path / "none.mat")


MPS = """NAME TINY
{sense}ROWS
 N COST
 L UP
 G DOWN
 E SAME
COLUMNS
 X COST 1. UP 1.
 X DOWN 1.
 Y COST 2. UP 1.
 Y SAME 1.
 Z COST -1. SAME 1.
RHS
 RHS COST -5. UP 4.
 RHS DOWN 1. SAME 3.
RANGES
 RNG UP 3.
BOUNDS
 UP BND X 3.
 FR BND Z
 FX BND Y 1.5
{more}ENDATA
"""


class TestMPS:
    @pytest.fixture(autouse=True)
    def highs(self):
        pytest.importorskip("highspy")

    def test_rows_ranges_bounds_and_the_constant(self, tmp_path):
        problem = read(written(tmp_path, "tiny.mps", MPS.format(sense="", more="")))
        # x + y in [1, 4], x >= 1, y + z = 3; 0 <= x <= 3, y = 1.5, z free
        program = problem.program
        assert program.cones == {"z": 2, "l": 5}
        assert feasible(program, np.array([1.0, 1.5, 1.5]))
        assert not feasible(program, np.array([0.9, 1.5, 1.5]))
        assert not feasible(program, np.array([2.6, 1.5, 1.5]))
        assert not feasible(program, np.array([1.0, 1.4, 1.6]))
        assert problem.objective(np.array([1.0, 1.5, 1.5])) == pytest.approx(1 + 3 - 1.5 + 5)
        np.testing.assert_allclose(cd.solve(program).x, [1.0, 1.5, 1.5], atol=1e-9)

    def test_a_maximum_is_the_negative_of_a_minimum(self, tmp_path):
        text = MPS.format(sense="OBJSENSE\n MAX\n", more="")
        problem = read(written(tmp_path, "most.mps", text))
        x = cd.solve(problem.program).x
        np.testing.assert_allclose(x, [2.5, 1.5, 1.5], atol=1e-9)
        assert problem.objective(x) == pytest.approx(2.5 + 3 - 1.5 + 5)

    def test_a_quadratic_objective_has_both_triangles(self, tmp_path):
        text = MPS.format(sense="", more="QUADOBJ\n X X 2.\n X Y 1.\n Y Y 4.\n")
        program = read(written(tmp_path, "square.mps", text)).program
        np.testing.assert_array_equal(program.P.toarray(), [[2, 1, 0], [1, 4, 0], [0, 0, 0]])

    def test_integers_and_nonsense_are_refused(self, tmp_path):
        with pytest.raises(FormatError, match="integer"):
            text = MPS.format(sense="", more="").replace(" FR BND Z", " BV BND Z")
            read(written(tmp_path, "whole.mps", text))
        with pytest.raises(FormatError, match="cannot read"):
            read(written(tmp_path, "none.mps", "ROWS\n Q what\n"))


SDPA = """"A comment, and another
* here
 2 = mDIM
 3 = nBLOCK
 (2, -2, 1) = bLOCKsTRUCT
{1.0,
 -2.0}
0 1 1 1 1.0
0 1 1 2 0.5
0 2 2 2 -3.0
1 1 1 1 2.0
1 1 2 1 4.0
2 1 2 2 1.0D0
1 2 1 1 1.0
2 2 2 2 0.0
2 3 1 1 7.0
"""


class TestSDPA:
    def test_blocks_and_entries_of_either_triangle(self, tmp_path):
        program = read_sdpa(written(tmp_path, "tiny.dat-s", SDPA)).program
        assert program.cones == {"l": 3, "s": [2]}
        np.testing.assert_array_equal(program.c, [1.0, -2.0])
        root = np.sqrt(2.0)
        np.testing.assert_allclose(
            -program.A.toarray(), [[1, 0], [0, 0], [0, 7], [2, 0], [4 * root, 0], [0, 1]], atol=1e-15
        )
        np.testing.assert_allclose(-program.b, [0, -3, 0, 1, 0.5 * root, 0], atol=1e-15)

    def test_the_largest_eigenvalue_is_a_program(self, tmp_path):
        """Minimise x subject to x I - F >= 0."""
        text = "1\n1\n3\n1.0\n0 1 1 1 2.0\n0 1 1 2 1.0\n0 1 2 3 -1.0\n1 1 1 1 1\n1 1 2 2 1\n1 1 3 3 1\n"
        problem = read_sdpa(written(tmp_path, "largest.dat-s", text))
        F = np.array([[2.0, 1, 0], [1, 0, -1], [0, -1, 0]])
        x = cd.solve(problem.program).x
        assert problem.objective(x) == pytest.approx(np.linalg.eigvalsh(F)[-1], abs=1e-9)

    @pytest.mark.parametrize(
        "change, message",
        [
            (("0 2 2 2 -3.0", "0 2 1 2 -3.0"), "off the diagonal"),
            (("0 2 2 2 -3.0", "0 4 2 2 -3.0"), "no such entry"),
            (("0 2 2 2 -3.0", "0 1 3 1 -3.0"), "no such entry"),
            (("0 2 2 2 -3.0", "3 1 2 1 -3.0"), "no such entry"),
            (("0 2 2 2 -3.0", "0 2 2 -3.0"), "five numbers"),
            (("0 2 2 2 -3.0", "0 2 2 2 many"), "many"),
        ],
    )
    def test_what_breaks_the_format_is_refused(self, tmp_path, change, message):
        with pytest.raises(FormatError, match=message):
            read_sdpa(written(tmp_path, "bad.dat-s", SDPA.replace(*change)))

    def test_a_file_that_ends_too_early_is_refused(self, tmp_path):
        with pytest.raises(FormatError, match="ends before"):
            read_sdpa(written(tmp_path, "short.dat-s", "3\n1\n2\n1.0 2.0\n"))


class TestFiles:
    def test_are_found_in_a_fixed_order_by_their_endings(self, tmp_path):
        (tmp_path / "b").mkdir()
        for name in ("z.mps", "A.dat-s", "b/y.cbf", "b/x.cbf.gz", "readme.txt"):
            (tmp_path / name).touch()
        found = [path.relative_to(tmp_path).as_posix() for path in files_of(tmp_path)]
        assert found == ["A.dat-s", "z.mps", "b/x.cbf.gz", "b/y.cbf"]
        assert [name_of(path) for path in files_of(tmp_path)] == ["A", "z", "x", "y"]

    def test_an_unknown_ending_is_refused(self, tmp_path):
        with pytest.raises(FormatError, match=".dat-s"):
            read(tmp_path / "what.txt")

    def test_compressed_files_say_the_same(self, tmp_path):
        text = "VER\n1\nOBJSENSE\nMIN\nVAR\n1 1\nL+ 1\nOBJACOORD\n1\n0 1\n"
        plain = read(written(tmp_path, "a.cbf", text)).program
        (tmp_path / "b.cbf.gz").write_bytes(gzip.compress(text.encode()))
        packed = read(tmp_path / "b.cbf.gz").program
        assert packed.cones == plain.cones == {"l": 1}
        np.testing.assert_array_equal(packed.A.toarray(), plain.A.toarray())
