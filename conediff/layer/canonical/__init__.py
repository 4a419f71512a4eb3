"""A cvxpy problem in, its `ProblemMaps` out. The only package that imports cvxpy.

cvxpy's own chain of reductions is run once, without values for the parameters, and what it yields
is read off: tensors that are affine in the reduced parameters, and the way back from a cone solution.
Both are taken from cvxpy's code by sending numbered entries through it, rather than by repeating what
each reduction does; so they follow cvxpy's conventions whatever those are.

The modules in the order in which a problem goes through them:

0. ``_stated``: a problem from Python functions, for `OptLayer`.
1. ``_pipeline``: `canonicalise`, which calls the others one after the other.
2. ``_checks``: the lists and the kind of problem; ``_names`` says what the user's objects are called.
3. ``_discipline``: DCP, DGP and DPP, and where they are broken; ``_advice`` says what to write instead.
4. ``_chain``: cvxpy's reductions, forward and back.
5. ``_parameters``: parameters to the reduced program's parameter vector.
6. ``_data``: that vector to P, A, b, c and d.
7. ``_outputs``: the cone solution to the user's variables and duals; ``_probe`` finds linear maps.
"""

from conediff.layer.canonical._pipeline import canonicalise
from conediff.layer.canonical._stated import stated_problem

__all__ = ["canonicalise", "stated_problem"]
