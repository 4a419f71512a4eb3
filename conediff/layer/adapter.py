"""What the layers of all frameworks have in common: how they are set up, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from conediff.errors import ParameterError
from conediff.layer.arguments import read_array
from conediff.layer.layer import CvxpyLayer
from conediff.layer.maps import ParameterSpec
from conediff.layer.opt_layer import OptLayer


class LayerMixin:
    """The constructor of an adapter's layer, which holds a NumPy layer.

    Attributes
    ----------
    numpy_layer : conediff.CvxpyLayer
    """

    numpy_layer: CvxpyLayer

    def __init__(
        self,
        problem: Any,
        parameters: Sequence[Any],
        variables: Sequence[Any],
        gp: bool = False,
        solver_args: Mapping[str, Any] | None = None,
        *,
        single_output: bool = False,
        **of_cvxpylayers: Any,
    ) -> None:
        options = {"single_output": single_output, **of_cvxpylayers}
        self._wrap(CvxpyLayer(problem, parameters, variables, gp, solver_args, **options))

    def _wrap(self, core: CvxpyLayer, *_: Any) -> None:
        """Set the layer up around a NumPy layer; frameworks that need more extend this."""
        self.numpy_layer = core

    @property
    def info(self) -> dict[str, Any]:
        """Status, iterations and residual per element of the last call, and its times in seconds."""
        return self.numpy_layer.info


class OptLayerMixin:
    """Makes an adapter's layer an `OptLayer`: ``class OptLayer(OptLayerMixin, AdaptersCvxpyLayer)``.

    The adapter's layer has a method ``_wrap(core, parameters, solver_args, **own)``, which sets it up
    around a NumPy layer.

    Attributes
    ----------
    OWN_ARGUMENTS : tuple of str
        Names of keyword arguments that go to ``_wrap``; all others are solver arguments.
    """

    OWN_ARGUMENTS: ClassVar[tuple[str, ...]] = ()
    _wrap: Callable[..., None]

    def __init__(
        self,
        variables: Sequence[Any],
        parameters: Sequence[Any],
        objective: Callable[..., Any],
        inequalities: Sequence[Callable[..., Any]] = (),
        equalities: Sequence[Callable[..., Any]] = (),
        **solver_args: Any,
    ) -> None:
        own = {name: solver_args.pop(name) for name in self.OWN_ARGUMENTS if name in solver_args}
        core = OptLayer(variables, parameters, objective, inequalities, equalities, **solver_args)
        self._wrap(core, parameters, solver_args, **own)


class MissingParameter(ParameterError, AttributeError):
    """A parameter is None. Also an AttributeError, which cvxpylayers raises."""


def check_layer(layer: Any, adapter: str) -> None:
    """Check that a function of an adapter, ``conediff.torch`` for instance, is given a NumPy layer.

    Raises
    ------
    TypeError
        If it is given something else, such as the adapter's own layer.
    """
    if not isinstance(layer, CvxpyLayer):
        raise TypeError(
            f"functional.solve takes a NumPy layer (conediff.CvxpyLayer; of a {adapter} layer, its "
            f"numpy_layer), but got a {type(layer).__module__}.{type(layer).__name__}"
        )


def check_given(name: str, value: Any, kind: str) -> None:
    """Check that a parameter is neither None nor a mapping, in which solver arguments may have been passed.

    Parameters
    ----------
    name : str
    value : object
    kind : str
        What it should be: "an array", for instance.

    Raises
    ------
    MissingParameter
        If it is None.
    TypeError
        If it is a mapping.
    """
    if value is None:
        raise MissingParameter(f"parameter {name!r} is None: pass {kind}")
    if isinstance(value, Mapping):
        raise TypeError(
            f"parameter {name!r} must be {kind}, but is a {type(value).__name__}: pass solver_args by name"
        )


def convert(spec: ParameterSpec, value: Any, to_array: Callable[[Any], Any]) -> Any:
    """Convert a parameter's value to a framework's array by the framework's own function.

    Raises
    ------
    MissingParameter
        If the value is None.
    TypeError, ValueError
        If it does not become an array: NumPy's reasons, with the parameter's name, else the framework's.
    """
    check_given(spec.name, value, "an array")
    try:
        return to_array(value)
    except (TypeError, ValueError):
        read_array(spec, value)
        raise


def third_derivatives(stop: str) -> NotImplementedError:
    """Return the error for a second derivative that is differentiated.

    Parameters
    ----------
    stop : str
        How the framework makes a constant of a value: "detach", for instance.
    """
    return NotImplementedError(
        "third derivatives of the layer are not supported: leave the layer out of the term that needs them, "
        f"{stop} its second derivative there, or take differences of second derivatives"
    )
