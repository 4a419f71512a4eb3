"""Canonicalisation: from a cvxpy problem to its `ProblemMaps`. The only package of the core with cvxpy.

`canonicalise` runs cvxpy's own chain of reductions once, without values for the parameters. The chain yields
tensors that are affine in the reduced parameters, and functions that invert a cone solution. Numbered entries
are sent through cvxpy's code to find the maps in both directions. No reduction is reimplemented here, so the
maps follow cvxpy's conventions.

The modules in the order in which a problem goes through them:

0. ``_functional``: builds a problem from Python functions, used by `OptLayer`.
1. ``_pipeline``: `canonicalise`, which calls the modules below one after the other.
2. ``_checks``: checks the lists and the kind of problem; ``_names``: ids and names of the user's objects.
3. ``_discipline``: finds violations of DCP, DGP and DPP; ``_advice``: suggests how to rewrite them,
   ``_products`` products of parameters; ``_spelling``: expressions as users write them.
4. ``_chain``: runs cvxpy's reductions, forward and back.
5. ``_parameters``: from the user's parameters to the reduced program's parameter vector.
6. ``_data``: from that vector to P, A, b, c and d.
7. ``_outputs``: from the cone solution to the user's variables and duals; ``_probe``: finds linear maps.
"""

from conediff.layer.canonical._checks import check_problem
from conediff.layer.canonical._functional import build_problem
from conediff.layer.canonical._pipeline import canonicalise

__all__ = ["build_problem", "canonicalise", "check_problem"]
