"""CvxpyLayer and OptLayer for Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state

import conediff
from conediff.layer.adapter import OptLayerMixin
from conediff.layer.calls import batch_shape
from conediff.layer.dtypes import output_dtype
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
        The outputs of a call: variables, dual variables (``constraint.dual_variables[0]``), and
        ``problem.objective`` for the optimal value.
    gp : bool
        Whether the problem is a geometric (log-log convex) program.
    solver_args : mapping, optional
        Defaults for every call, as of `conediff.CvxpyLayer`.
    weights : mapping, optional
        Parameters that are weights of the layer rather than inputs, each with its initializer: anything that
        Keras accepts as one, an array, or a dictionary of arguments of ``add_weight`` (initializer,
        regularizer, constraint, trainable). Keys are the parameters, or their names.
    single_output : bool
        Whether calls return the only output itself, as Sequential needs it, instead of a tuple of one.
    **kwargs
        Arguments of every Keras layer: name, dtype, trainable. With a ``dtype``, or under a global dtype
        policy other than float32, inputs are cast to the policy's compute dtype, as in every Keras layer;
        otherwise outputs have the inputs' dtype.

    Raises
    ------
    DPPError, ProblemError, TypeError, ValueError
        As `conediff.CvxpyLayer`; also if the Keras backend is neither TensorFlow nor PyTorch.

    Notes
    -----
    Call it as ``layer(A, b)``, ``layer([A, b])`` or ``layer({"A": A, "b": b})``. It runs eagerly and in
    graphs, but not under XLA. It solves on the CPU.

    Input shape: for each parameter, ``(..., *parameter.shape)``. The leading dimensions are the batch.
    Parameters that have some must have the same number of them, which broadcast.

    Output shape: for each variable ``(..., *variable.shape)``, for the optimal value ``(...)``, with the
    dimensions of the batch in front.

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
        """Hide the arguments from Keras: it sorts the keys of dictionaries, and cvxpy forbids comparisons."""
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
        core = conediff.CvxpyLayer(
            problem, parameters, variables, gp, solver_args, single_output=single_output
        )
        self._wrap(core, parameters, solver_args or {}, weights=weights, **kwargs)

    def _wrap(
        self,
        core: conediff.CvxpyLayer,
        parameters: Sequence[Any],
        solver_args: Mapping[str, Any],
        weights: Mapping[Any, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Set the layer up; ``parameters`` are those of the problem, or their names."""
        default = kwargs.get("dtype") is None and keras.config.dtype_policy().name == "float32"
        super().__init__(**{"autocast": not default, **kwargs})
        self.supports_jit = False
        self.single_output = core.single_output
        inputs = Inputs.of(core.parameters, parameters, weights or {})
        # Keras replaces dictionaries and lists among the attributes by its own; inside tuples it does not.
        self._core, self._inputs, self._defaults = core, inputs, (dict(solver_args),)
        shapes = {spec.name: spec.shape for spec in core.parameters}
        own = {name: self._weight(name, shapes[name], options) for name, options in inputs.weights.items()}
        self._own_weights = (own,)

    def _weight(self, name: str, shape: tuple[int, ...], options: Mapping[str, Any]) -> Any:
        try:
            return self.add_weight(name=name, shape=shape, **options)
        except TypeError as error:
            raise TypeError(f"weights: the options of {name!r} are invalid: {error}") from error

    @property
    def info(self) -> dict[str, Any]:
        """Status, iterations, refinements and residual per element of the last call; its times in seconds."""
        return self._core.info

    def build(self, input_shape: Any = None) -> None:
        """Check the shapes of the inputs, of which some sizes may be None.

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
            # Otherwise Keras raises a copy with the message only, without indices, statuses and solutions.
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
        """Refuse to return a tuple to the next layer of a Sequential model.

        Some layers would accept it and stack its parts; others raise errors that do not say what is wrong.
        Keras has no hook that tells a layer what is done with its outputs. But it keeps a stack of the layers
        that are being built, for the paths of their variables, and a Sequential model calls its layers while
        it is built.
        """
        scopes = global_state.get_global_attribute("name_scope_stack", default=[])
        models = [scope.caller for scope in scopes if isinstance(scope.caller, keras.Sequential)]
        if models and not models[-1].built and any(layer is self for layer in models[-1].layers[:-1]):
            count = len(self._core.outputs)
            advice = (
                "make it with single_output=True"
                if count == 1
                else "use a functional model (keras.Model) instead"
            )
            raise ValueError(
                f"{self.name} returns a tuple of {count}, which the next layer of a Sequential model cannot "
                f"take: {advice}"
            )

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
        """Return the outputs' dtypes: that of the inputs, or the layer's own if no input is floating."""
        names = [keras.backend.standardize_dtype(item.dtype) for item in passed]
        real = output_dtype(names, _promoted, self.compute_dtype)
        wide = "complex128" if real == "float64" else "complex64"
        return [wide if spec.complex else real for spec in self._core.outputs]

    def get_config(self) -> dict[str, Any]:
        """Return the configuration for `from_config`; the problem is in it as canonical maps, in plain text.

        Warns
        -----
        ConediffWarning
            If ``solver_args`` have an executor, which is not saved.
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
        core = conediff.CvxpyLayer.from_maps(maps, solver_args, single_output=rest.pop("single_output"))
        layer: CvxpyLayer = cls.__new__(cls)
        layer._wrap(core, [spec.name for spec in core.parameters], solver_args, **rest)
        return layer

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> Any:
        """Refuse to be saved in a SavedModel, which holds graphs and no Python."""
        if save_type == "savedmodel":
            raise NotImplementedError(serial.NO_SAVED_MODEL.format(self.name))
        return super()._trackable_children(save_type, **kwargs)


@keras.saving.register_keras_serializable(package="conediff")
class OptLayer(OptLayerMixin, CvxpyLayer):
    __doc__ = conediff.OptLayer.__doc__
    OWN_ARGUMENTS = ("name", "dtype", "trainable", "autocast", "weights")


def _promoted(*names: str) -> str:
    # Keras itself promotes float64 to float32 on the torch backend.
    promoted: str = "float64" if "float64" in names else keras.backend.result_type(*names)
    return promoted
