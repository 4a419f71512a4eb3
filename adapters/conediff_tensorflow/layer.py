"""CvxpyLayer and OptLayer for Keras."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

import conediff
from conediff.layer.arguments import batch_shape
from conediff.solver.settings import without_executor

from . import serial
from .backend import solve
from .inputs import Inputs


@keras.saving.register_keras_serializable(package="conediff")
class CvxpyLayer(keras.layers.Layer):
    r"""A convex problem as a Keras layer: values of its parameters in, its solution out, differentiable.

    Parameters
    ----------
    problem : cvxpy.Problem
        Disciplined in its parameters (DPP); ``quad_form(x, P)`` with a PSD parameter P is allowed in the
        objective.
    parameters : list or tuple of cvxpy.Parameter
        All parameters of the problem, in the order in which calls pass them.
    variables : list or tuple
        What calls return: variables, dual variables (``constraint.dual_variables[0]``), and
        ``problem.objective`` for the optimal value.
    gp : bool
        Whether the problem is a geometric (log-log convex) program.
    solver_args : mapping, optional
        Defaults for every call, as of `conediff.CvxpyLayer`.
    weights : mapping, optional
        Parameters that are no inputs but weights of the layer, each with its initializer: anything that Keras
        takes for one, an array, or a dictionary of arguments of ``add_weight`` (initializer, regularizer,
        constraint, trainable). Keys are the parameters, or their names.
    single_output : bool
        Whether calls return the one output itself, as Sequential needs it, and not a tuple of one.
    **kwargs
        Keras's own: name, dtype, trainable. With a ``dtype``, or under a global dtype policy other than
        float32, inputs are cast to the policy's compute dtype, as in every Keras layer; else outputs have the
        inputs' dtype.

    Raises
    ------
    DPPError, ProblemError, TypeError, ValueError
        As `conediff.CvxpyLayer`; also if the Keras backend is neither TensorFlow nor PyTorch.

    Notes
    -----
    Call it as ``layer(A, b)``, ``layer([A, b])`` or ``layer({"A": A, "b": b})``, with any number of leading
    batch dimensions that broadcast against each other. It runs on NumPy: eagerly, in graphs, not under XLA.

    Examples
    --------
    >>> import cvxpy as cp, numpy as np
    >>> from conediff.tensorflow import CvxpyLayer
    >>> z, x = cp.Variable(2), cp.Parameter(2)
    >>> layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - x)), [z >= 0]), [x], [z])
    >>> z_star, = layer(np.array([[1.0, -1.0]]))
    >>> z_star.shape
    TensorShape([1, 2])
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Keep the arguments from Keras, which would sort the keys of ``weights``; cvxpy forbids that."""
        return super().__new__(cls)

    def __init__(
        self,
        problem: Any,
        parameters: Sequence[Any],
        variables: Sequence[Any],
        gp: bool = False,
        solver_args: Mapping[str, Any] | None = None,
        *,
        weights: Mapping[Any, Any] | None = None,
        single_output: bool = False,
        **kwargs: Any,
    ) -> None:
        core = conediff.CvxpyLayer(problem, parameters, variables, gp=gp, solver_args=solver_args)
        inputs = Inputs.of(core.parameters, parameters, weights or {})
        self._setup(core, inputs, solver_args or {}, single_output, kwargs)

    def _setup(
        self,
        core: conediff.CvxpyLayer,
        inputs: Inputs,
        solver_args: Mapping[str, Any],
        single_output: bool,
        kwargs: Mapping[str, Any],
    ) -> None:
        if single_output and len(core.outputs) != 1:
            raise ValueError(
                f"single_output: the layer returns {len(core.outputs)} variables, not one: leave it out, or "
                "ask for one of them only"
            )
        default = kwargs.get("dtype") is None and keras.config.dtype_policy().name == "float32"
        super().__init__(**{"autocast": not default, **kwargs})
        self.supports_jit = False
        self.single_output = single_output
        # Keras wraps the dictionaries and lists among attributes; in tuples it leaves them alone.
        self._core, self._inputs, self._defaults = core, inputs, (dict(solver_args),)
        shapes = {spec.name: spec.shape for spec in core.parameters}
        own = {name: self._weight(name, shapes[name], options) for name, options in inputs.weights.items()}
        self._own_weights = (own,)

    def _weight(self, name: str, shape: tuple[int, ...], options: Mapping[str, Any]) -> Any:
        try:
            return self.add_weight(name=name, shape=shape, **options)
        except TypeError as error:
            raise TypeError(f"weights: what is said of {name!r} is not understood: {error}") from error

    @property
    def info(self) -> dict[str, Any]:
        """How the last call went: status, iterations, refinements and residual per element; times (s)."""
        return self._core.info

    def build(self, input_shape: Any = None) -> None:
        """Check the shapes of the inputs, as far as they are known.

        Raises
        ------
        ValueError
            If they fit neither the parameters nor each other.
        """
        self._batch(self._inputs.shapes(input_shape))

    def call(self, *inputs: Any, solver_args: Mapping[str, Any] | None = None) -> Any:
        """Solve the problem for a batch of parameters.

        Parameters
        ----------
        *inputs : tensors, shape (..., *parameter.shape)
            One for each parameter that is no weight; or one list, or a dictionary by name, of them.
        solver_args : mapping, optional
            Overrides the layer's defaults for this call.

        Returns
        -------
        tuple of tensors, shape (*batch, *variable.shape)
            Or the tensor itself with ``single_output``.

        Raises
        ------
        ParameterError, SolverError, TypeError, ValueError
            As `conediff.CvxpyLayer.solve`; inside a graph TensorFlow turns them into its own, with the same
            message.
        """
        passed = [keras.ops.convert_to_tensor(item) for item in self._inputs.listed(inputs)]
        (own,) = self._own_weights
        params = self._inputs.merged(passed, {name: weight.value for name, weight in own.items()})
        shapes = self._shapes(batch_shape(self._core.parameters, [tuple(p.shape) for p in params]))
        try:
            outputs = solve(self._core, params, solver_args or {}, self._dtypes(passed), shapes)
        except conediff.SolverError as error:
            # Else Keras raises a copy that has the message only, without indices, statuses and solutions.
            error._keras_call_info_injected = True  # type: ignore[attr-defined]
            raise
        return outputs[0] if self.single_output else outputs

    def compute_output_spec(self, *inputs: Any, solver_args: Mapping[str, Any] | None = None) -> Any:
        """Return the outputs' shapes and dtypes, before there are any data."""
        if not self.single_output:
            self._check_followed()
        passed = self._inputs.listed(inputs)
        shapes = self._shapes(self._batch([tuple(item.shape) for item in passed]))
        specs = tuple(
            keras.KerasTensor(shape, dtype) for shape, dtype in zip(shapes, self._dtypes(passed), strict=True)
        )
        return specs[0] if self.single_output else specs

    def _check_followed(self) -> None:
        """Refuse to hand a tuple to the next layer of a Sequential model, whose own message tells nothing."""
        frame = sys._getframe(1)
        while frame is not None:
            model = frame.f_locals.get("self")
            if isinstance(model, keras.Sequential) and frame.f_code.co_name == "build":
                if any(layer is self for layer in model.layers[:-1]):
                    advice = (
                        "make it with single_output=True"
                        if len(self._core.outputs) == 1
                        else "use a functional model (keras.Model) instead"
                    )
                    raise ValueError(
                        f"{self.name} returns a tuple of {len(self._core.outputs)}, which the next layer of "
                        f"a Sequential model cannot take: {advice}"
                    )
                return
            frame = frame.f_back  # type: ignore[assignment]

    def compute_output_shape(self, *input_shape: Any) -> Any:
        """Return the outputs' shapes for those of the inputs."""
        shapes = self._shapes(self._batch(self._inputs.shapes(input_shape)))
        return shapes[0] if self.single_output else shapes

    def _batch(self, shapes: Sequence[Any]) -> tuple[int | None, ...]:
        (own,) = self._own_weights
        merged = self._inputs.merged(shapes, {name: tuple(w.shape) for name, w in own.items()})
        return batch_shape(self._core.parameters, merged)

    def _shapes(self, batch: tuple[int | None, ...]) -> tuple[tuple[int | None, ...], ...]:
        return tuple(batch + spec.shape for spec in self._core.outputs)

    def _dtypes(self, passed: Sequence[Any]) -> list[str]:
        """Return the outputs' dtypes: that of the inputs, or the layer's own where none is floating."""
        names = [keras.backend.standardize_dtype(item.dtype) for item in passed]
        reals = {"complex64": "float32", "complex128": "float64"}
        floating = [reals.get(name, name) for name in names if name in reals or "float" in name]
        if "float64" in floating:
            real = "float64"  # which Keras itself takes down to float32 on the torch backend
        else:
            real = keras.backend.result_type(*floating) if floating else self.compute_dtype
        wide = "complex128" if real == "float64" else "complex64"
        return [wide if spec.complex else real for spec in self._core.outputs]

    def get_config(self) -> dict[str, Any]:
        """Return all that `from_config` needs, the canonical maps of the problem included, as plain text.

        Warns
        -----
        ConediffWarning
            If ``solver_args`` have an executor, which stays behind.
        """
        (solver_args,) = self._defaults
        return {
            **super().get_config(),
            "autocast": self.autocast,
            "maps": serial.encode(self._core.maps),
            "solver_args": keras.saving.serialize_keras_object(without_executor(solver_args)),
            "weights": self._inputs.get_config(),
            "single_output": self.single_output,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CvxpyLayer:
        """Rebuild a layer, without cvxpy."""
        rest = dict(config)
        maps = serial.decode(rest.pop("maps"))
        solver_args = keras.saving.deserialize_keras_object(rest.pop("solver_args"))
        weights, single_output = rest.pop("weights"), rest.pop("single_output")
        core = conediff.CvxpyLayer.from_maps(maps, solver_args)
        inputs = Inputs.of(core.parameters, [spec.name for spec in core.parameters], weights)
        layer = cls.__new__(cls)
        layer._setup(core, inputs, solver_args, single_output, rest)
        return layer

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> Any:
        """Refuse to go into a SavedModel, which holds graphs and no Python."""
        if save_type == "savedmodel":
            raise NotImplementedError(serial.NO_SAVED_MODEL.format(self.name))
        return super()._trackable_children(save_type, **kwargs)


@keras.saving.register_keras_serializable(package="conediff")
class OptLayer(CvxpyLayer):
    """A layer whose problem is stated by Python functions.

    Parameters
    ----------
    variables, parameters : lists of cvxpy.Variable, cvxpy.Parameter
    objective : callable
        Takes the variables, then the parameters; returns the expression to minimise.
    inequalities, equalities : lists of callables, optional
        Of the same arguments: g with g <= 0, h with h == 0.
    **kwargs
        Keras's name, dtype and trainable, and ``weights`` as of `CvxpyLayer`; others are solver arguments.

    Notes
    -----
    The functions are called once, with cvxpy objects only. A call returns one tensor where there is
    one variable, and a tuple of them otherwise.
    """

    def __init__(
        self,
        variables: Sequence[Any],
        parameters: Sequence[Any],
        objective: Callable[..., Any],
        inequalities: Sequence[Callable[..., Any]] = (),
        equalities: Sequence[Callable[..., Any]] = (),
        *,
        weights: Mapping[Any, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        own = {key: kwargs.pop(key) for key in ("name", "dtype", "trainable", "autocast") if key in kwargs}
        core = conediff.OptLayer(variables, parameters, objective, inequalities, equalities, **kwargs)
        inputs = Inputs.of(core.parameters, parameters, weights or {})
        self._setup(core, inputs, kwargs, len(variables) == 1, own)
