"""The PyTorch layer as a module among others: copies, saving, training, compiling, processes and threads."""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import io
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc

import cvxpy as cp
import numpy as np
import pytest

import conediff as cd
from tests.adapters import contract

torch = pytest.importorskip("torch")
ct = importlib.import_module("conediff.torch")
compiled_calls = importlib.import_module("conediff_torch._compiled_calls")

QUADRATIC = contract.QUADRATIC


class Net(torch.nn.Module):
    """A linear layer, and a projection of what it says onto the simplex."""

    def __init__(self, **solver_args):
        super().__init__()
        x, c = cp.Variable(4), cp.Parameter(4)
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.sum(x) == 1, x >= 0])
        self.linear = torch.nn.Linear(5, 4)
        self.layer = ct.CvxpyLayer(problem, [c], [x], solver_args=solver_args)

    def forward(self, h, solver_args=None):
        return self.layer(self.linear(h), solver_args=solver_args)[0]


def net(seed=0, dtype=torch.float64, **solver_args):
    torch.manual_seed(seed)
    return Net(**solver_args).to(dtype)


def data(count=6, seed=1, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.standard_normal((count, 5)), dtype=dtype)


def train(model, steps=25, seed=1):
    """Return the losses of plain gradient descent towards fixed targets."""
    h, target = data(seed=seed), torch.softmax(data(seed=seed + 1)[:, :4], -1)
    optimiser, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = ((model(h) - target) ** 2).sum()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


# ---------------------------------------------------------------------- copies


def _saved(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model)), _saved],
    ids=["deepcopy", "copy", "pickle", "save"],
)
def test_copies_are_the_same(copied):
    model, h = net(), data()
    expected = model(h)
    other = copied(model)
    assert torch.equal(other(h), expected)
    assert repr(other) == repr(model)
    other(h).sum().backward()
    assert other.linear.weight.grad is not None


def test_copies_share_an_executor_and_pickles_leave_it_behind():
    values = [torch.tensor(value) for value in QUADRATIC.values((5,))]
    with contract.Counting(2) as executor:
        layer = ct.CvxpyLayer(*QUADRATIC.state(), solver_args={"executor": executor})
        expected = layer(*values)[0]
        jobs = executor.jobs
        assert torch.equal(copy.deepcopy(layer)(*values)[0], expected) and executor.jobs == 2 * jobs
        with pytest.warns(cd.ConediffWarning, match="executor stays behind"):
            loaded = _saved(layer)
        torch.testing.assert_close(loaded(*values)[0], expected, rtol=1e-9, atol=1e-9)
        assert executor.jobs == 2 * jobs


def test_an_executor_and_compile():
    """A compiled layer has its own, or is given one by the call; not that of an earlier call."""
    values = [torch.tensor(value, requires_grad=True) for value in QUADRATIC.values((5,))]
    with contract.Counting(2) as executor, contract.Counting(2) as other:
        layer = ct.CvxpyLayer(*QUADRATIC.state(), solver_args={"executor": executor})
        compiled = torch.compile(lambda *tensors: layer(*tensors)[0].sum(), backend="eager", fullgraph=True)
        compiled(*values).backward()
        assert executor.jobs == 2
        plain = ct.CvxpyLayer(*QUADRATIC.state())

        @torch.compile(backend="eager", fullgraph=True)
        def call(args, *tensors):
            return plain(*tensors, solver_args=args)[0].sum()

        for given, jobs in ((executor, (4, 0)), (other, (4, 2)), (executor, (6, 2))):
            call({"executor": given}, *values).backward()
            assert (executor.jobs, other.jobs) == jobs


def test_copies_outlive_the_original_even_compiled():
    model, h = net(), data()
    expected, other = model(h), copy.deepcopy(model)
    del model
    gc.collect()
    assert torch.allclose(torch.compile(other, backend="eager", fullgraph=True)(h), expected)


def test_state():
    model = net()
    assert set(model.state_dict()) == {"linear.weight", "linear.bias"}
    assert not list(model.layer.parameters()) and not list(model.layer.buffers())
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = net(seed=5)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(data()), model(data()))


def test_modes_and_conversions_leave_the_layer_alone():
    model, h = net(), data()
    expected = model(h)
    assert torch.equal(model.eval()(h), expected) and torch.equal(model.train()(h), expected)
    assert model.float()(h.float()).dtype == torch.float32
    assert model.bfloat16()(h.bfloat16()).dtype == torch.bfloat16
    assert "Layer((" in repr(model.layer)


def test_averaged_model():
    model = net()
    average = torch.optim.swa_utils.AveragedModel(model)
    ema = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    for _ in range(2):
        train(model, steps=2)
        average.update_parameters(model)
        ema.update_parameters(model)
    assert average(data()).shape == ema(data()).shape == (6, 4)


def test_functional_call():
    model, h = net(), data()
    state = dict(model.named_parameters())

    def loss(state, h):
        return (torch.func.functional_call(model, state, (h,)) ** 2).sum()

    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(state, h)
    assert rows["linear.weight"].shape == (6, 4, 5)
    (model(h) ** 2).sum().backward()
    torch.testing.assert_close(rows["linear.weight"].sum(0), model.linear.weight.grad)


# ---------------------------------------------------------------------- training


def test_training_is_that_of_the_dense_reference():
    losses = train(net())
    assert losses[-1] < 0.8 * losses[0]
    np.testing.assert_allclose(losses, train(net(method="dense")), rtol=1e-8)
    np.testing.assert_allclose(losses, train(net(warm_start=True)), rtol=1e-8)


def test_results_do_not_depend_on_threads():
    assert train(net(threads=1)) == train(net(threads=1))
    np.testing.assert_allclose(train(net(threads=1)), train(net(threads=3)), rtol=1e-12)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant):
    model, h = net(), data().requires_grad_()
    model(h).square().sum().backward()
    expected, h.grad = h.grad, None
    torch.utils.checkpoint.checkpoint(model, h, use_reentrant=reentrant).square().sum().backward()
    assert torch.equal(h.grad, expected)


def test_memory_is_flat():
    model, h, kept = net(threads=1), data(2), []

    def step():
        loss = model(h).square().sum()
        loss.backward()
        kept.append(loss)  # a common slip, which must not keep the solutions

    for _ in range(20):
        step()
    tracemalloc.start()
    try:
        for _ in range(20):
            step()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            step()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 200 * 2000  # the kept losses themselves, with their graphs' nodes


@pytest.mark.slow
def test_memory_is_flat_over_2000_iterations():
    model, h = net(), data(32)
    resource = pytest.importorskip("resource")

    def run(steps):
        for _ in range(steps):
            model(h).square().sum().backward()
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = run(300)
    assert run(2000) - before < 4_000  # kilobytes


# ---------------------------------------------------------------------- threads and processes


def test_threads_share_a_layer():
    model = net(warm_start=True)
    inputs = [data(count, seed) for seed in range(4) for count in (2, 5)]
    expected = [net()(h) for h in inputs]
    wrong = []

    def work(h, reference):
        wrong.extend(h for _ in range(5) if not torch.allclose(model(h), reference, atol=1e-8))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_data_parallel():
    model, h = net(), data()
    assert torch.equal(torch.nn.DataParallel(model)(h), model(h))
    # What it does on several devices, here on one: replicas that share all but the parameters.
    replicas = [model.layer._replicate_for_data_parallel() for _ in range(2)]
    for replica, part in zip(replicas, model.linear(h).chunk(2), strict=True):
        assert replica(part)[0].shape == (3, 4)


class Solutions(torch.utils.data.Dataset):
    """A data set whose items are solved for."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 4

    def __getitem__(self, index):
        with torch.no_grad():
            return self.model(data(2, seed=index))


def test_data_loader_workers():
    model = net()
    loader = torch.utils.data.DataLoader(Solutions(model), batch_size=2, num_workers=2)
    got = torch.cat(list(loader))
    expected = torch.stack([model(data(2, seed=i)) for i in range(4)])
    assert torch.allclose(got, expected)


WORKER = """
import sys, torch, torch.distributed as dist
from tests.adapters.test_torch_modules import net, data
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
model = torch.nn.parallel.DistributedDataParallel(net())
for _ in range(2):
    model.zero_grad()
    model(data()[rank::2]).square().sum().backward()
g = model.module.linear.weight.grad
single = net()
single(data()).square().sum().backward()
assert torch.allclose(g, single.linear.weight.grad / 2, rtol=1e-8), "gradients differ"
dist.destroy_process_group()
"""


def test_distributed_data_parallel(tmp_path):
    root = os.getcwd()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.path.join(root, "adapters")])}
    env["OMP_NUM_THREADS"] = "1"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store")],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


# ---------------------------------------------------------------------- torch.compile


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def check_compiled(backend, recwarn):
    model = net()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for count in (3, 5, 7, 9):
        h = data(count)
        expected = model(h)
        expected.square().sum().backward()
        grad, model.linear.weight.grad = model.linear.weight.grad, None
        out = compiled(h)
        out.square().sum().backward()
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(model.linear.weight.grad, grad)
        model.zero_grad()
        assert model.layer.info["status"].shape == (count,)
    assert graphs() <= 2  # one for the first size, one for any
    assert not [w for w in recwarn if "conediff" in str(w.filename)]


def test_compile(recwarn):
    check_compiled("aot_eager", recwarn)


@pytest.mark.slow
def test_compile_with_inductor(recwarn):
    check_compiled("inductor", recwarn)


def test_compiled_layers_do_not_take_each_others_place():
    @torch.compile(backend="eager", fullgraph=True)
    def run(layer, c):
        return layer(c)[0]

    x, c = cp.Variable(2), cp.Parameter(2)
    layers = [
        ct.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - k * c))), [c], [x]) for k in (1.0, 2.0, 3.0)
    ]
    for _ in range(2):
        for k, layer in enumerate(layers, 1):
            torch.testing.assert_close(run(layer, torch.ones(2)), torch.full((2,), float(k)))


def test_solver_args_in_a_compiled_model():
    model, h = net(), data()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for args in (
        {"max_iters": 300},
        {"max_iters": 301},
        {"tol": 1e-8, "max_iters": 302},
        {"tol": 1e-9, "max_iters": 303},
        {"tol": 1e-7, "on_failure": "nan", "refine": True, "threads": None},
    ):
        out = compiled(h, solver_args=args)
        out.sum().backward()
        torch.testing.assert_close(out, model(h), rtol=1e-5, atol=1e-6)
    coarse = compiled(h, solver_args={"tol": 1e-2, "refine": False})
    assert not torch.allclose(coarse, model(h), rtol=1e-9, atol=1e-10)
    with pytest.raises(Exception, match="unknown solver argument"):
        compiled(h, solver_args={"epz": 1e-2})
    for refused in (print, lambda solution: "nan", functools.partial(print), np.float64(1.0)):
        with pytest.raises(Exception, match="on_failure must be a number.*to the layer's constructor"):
            compiled(h, solver_args={"on_failure": refused})


@pytest.mark.filterwarnings("ignore::conediff.AccuracyWarning")
def test_new_values_of_solver_args():
    """A new int needs no new graph; a new float is not mistaken for an earlier one."""
    model, h = net(), data()
    compiled = torch.compile(model, backend="eager", fullgraph=True)

    def iterations(**args):
        args = {"refine": False, "on_failure": "nan", **args}
        out, residual = compiled(h, solver_args=args), model.layer.info["residual"]
        assert (residual > 0).all()
        torch.testing.assert_close(out, model(h, solver_args=args), rtol=0, atol=0, equal_nan=True)
        np.testing.assert_array_equal(residual, model.layer.info["residual"])
        return model.layer.info["iterations"].max()

    before = graphs()
    assert len({iterations(max_iters=count, eps=1e-12) for count in (25, 50, 75, 100)}) == 4
    assert graphs() == before + 2  # one for the first int, one for any
    assert len({iterations(eps=eps) for eps in (1e-1, 1e-4, 1e-9)}) > 1


def test_compiled_models_see_the_same_errors():
    layer = ct.CvxpyLayer(*QUADRATIC.state())
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    for name, values, _, message in contract.BAD_CALLS:
        with pytest.raises(Exception, match=message):
            compiled(*(torch.tensor(v) for v in values))
        assert name


def test_compiled_partial_gradients_and_vmap():
    layer = ct.CvxpyLayer(*QUADRATIC.state())
    A, b, lam = (torch.tensor(v) for v in QUADRATIC.values((3,)))
    b.requires_grad_()

    def loss(A, b, lam):
        _, _, dual, value = layer(A, b, lam)
        return dual.square().sum() + value.sum()

    (expected,) = torch.autograd.grad(loss(A, b, lam), b)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(A, b, lam), b)[0], expected)
    mapped = torch.func.vmap(lambda b: layer(A[0], b, lam[0])[0])
    b = b.detach()
    torch.testing.assert_close(torch.compile(mapped, backend="eager", fullgraph=True)(b), mapped(b))
    with torch.no_grad():
        torch.testing.assert_close(compiled(A, b, lam), loss(A, b, lam))


@pytest.mark.parametrize("case", [c for c in contract.CASES if c.name in ("quadratic", "complex")], ids=str)
def test_operator_says_beforehand_what_it_returns(case):
    layer = ct.CvxpyLayer(*case.state())
    values = [torch.tensor(v) for v in case.values((2,))]
    call = compiled_calls.register(id(layer.numpy_layer), (("tol",), (), (), ()))
    torch.library.opcheck(
        torch.ops.conediff.solve,
        (values, call, [1e-9], []),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_traces_do_not_keep_a_solution_for_good():
    with pytest.raises(NotImplementedError, match="torch.export"):
        torch.jit.trace(net().layer, torch.ones(4), check_trace=False)


@pytest.mark.slow
def test_export():
    model, h = net(), data()
    program = torch.export.export(model, (h,))
    torch.testing.assert_close(program.module()(h), model(h))


def test_an_exported_graph_does_not_outlive_its_layer():
    model, h = net(), data()
    program = torch.export.export(model, (h,)).module()
    del model
    gc.collect()
    net(seed=3)  # may be where the other was
    with pytest.raises(RuntimeError, match="does not exist here"):
        program(h)


def test_an_exported_graph_is_refused_in_another_process(tmp_path):
    model, h = net(), data()
    torch.export.save(torch.export.export(model, (h,)), tmp_path / "graph.pt2")
    code = (
        "import sys, torch; from tests.adapters.test_torch_modules import data, net; model = net();"
        "torch.export.load(sys.argv[1]).module()(data())"
    )
    root = os.getcwd()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.path.join(root, "adapters")])}
    command = [sys.executable, "-c", code, str(tmp_path / "graph.pt2")]
    result = subprocess.run(command, env=env, capture_output=True, text=True)
    assert result.returncode == 1 and "made by another process" in result.stderr


# ---------------------------------------------------------------------- calls by name or by object


def test_calls_by_name_and_by_object():
    problem, (A, b, lam), outputs = contract.QUADRATIC.state()
    layer = ct.CvxpyLayer(problem, [A, b, lam], outputs)
    values = [torch.tensor(v, requires_grad=True) for v in contract.QUADRATIC.values((2,))]
    expected = layer(*values)
    names = [spec.name for spec in layer.numpy_layer.parameters]
    by_name = dict(zip(names, values, strict=True))
    by_object = {lam: values[2], A: values[0], b: values[1]}
    functional = ct.functional.solve(layer.numpy_layer, by_object)
    for found in (layer(by_name), layer(**by_name), layer(by_object), functional):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    gradients = torch.autograd.grad(layer(by_object)[0].sum(), values)
    for one, other in zip(gradients, torch.autograd.grad(expected[0].sum(), values), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="expected values by the names"):
        layer({A: values[0]})
    with pytest.raises(TypeError, match="by position or by name"):
        layer(values[0], **{names[1]: values[1]})
    with pytest.raises(ValueError, match="received 0 tensors, expected 3"):
        layer()


# ---------------------------------------------------------------------- a tensor in place of a tuple


def test_single_output_in_a_sequential_model():
    x, c = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.sum(x) == 1, x >= 0])
    layer = ct.CvxpyLayer(problem, [c], [x], single_output=True)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), layer, torch.nn.Linear(2, 1))
    inputs = torch.randn(5, 3)
    for net in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        output = net(inputs)
        assert output.shape == (5, 1)
        output.sum().backward()
        assert net[0].weight.grad is not None
    (alone,) = ct.CvxpyLayer(problem, [c], [x])(torch.ones(2))
    torch.testing.assert_close(layer(torch.ones(2)), alone)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), model(inputs))
    with pytest.raises(ValueError, match="single_output: the layer returns 2 variables, not one"):
        ct.CvxpyLayer(problem, [c], [x, problem.objective], single_output=True)
