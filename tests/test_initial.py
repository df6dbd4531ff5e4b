"""What training may start from, and what is said of everything else."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sampled import sampled

import rfho
from rfho.dynamics import SplitModel
from rfho.hyper_gradients import ForwardHyperGradient

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (12, 3))
Y = jnp.sin(X.sum(axis=1))
HYPER = {"lr": jnp.array(0.1), "l2": jnp.array(0.01)}
Keep = rfho.Keep


class Net(eqx.Module):
    """A model with a learned scale, an activation, a dropout layer and a flag."""

    mlp: eqx.nn.MLP
    drop: eqx.nn.Dropout
    scale: jax.Array
    name: str
    doubled: bool

    def __init__(self):
        self.mlp = eqx.nn.MLP(3, "scalar", 4, 2, activation=jnp.tanh, key=KEY, dtype=jnp.float64)
        self.drop = eqx.nn.Dropout(0.25)
        self.scale = jnp.array(1.5)
        self.name = "net"
        self.doubled = True

    def __call__(self, x, key=None):
        x = self.drop(x, key=key) if key is not None else x
        return (2 if self.doubled else 1) * self.scale * self.mlp(x)


NET = Net()
ARRAYS, REST = eqx.partition(NET, eqx.is_inexact_array)


def square(net, hyper, batch):
    x, y = batch
    keys = jax.random.split(jax.random.key(4), len(x))
    decay = sum(jnp.sum(layer.weight**2) for layer in net.mlp.layers)
    return jnp.mean((jax.vmap(net)(x, keys) - y) ** 2) + hyper["l2"] * decay


def score(net, hyper, batch):
    x, y = batch
    return jnp.mean((jax.vmap(eqx.nn.inference_mode(net))(x) - y) ** 2)


def sgd(hyper):
    return optax.sgd(hyper["lr"], momentum=0.9)


def descent(init, loss=square, **options):
    return rfho.Descent(loss, sgd, init, **options)


def problem(dynamics, objective=score):
    return rfho.Problem(dynamics, objective, train=(X, Y), valid=(X, Y), horizon=4)


def split_by_hand():
    of_arrays = lambda function: lambda w, h, b: function(eqx.combine(w, REST), h, b)  # noqa: E731
    return problem(descent(ARRAYS, of_arrays(square)), of_arrays(score))


def close(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    for one, other in pairs:
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-15)


STARTS = {
    "a model": (NET, square, score),
    "a function that makes one": (lambda hyper: NET, square, score),
    "a model within a tree": (
        {"net": NET},
        lambda w, h, b: square(w["net"], h, b),
        lambda w, h, b: score(w["net"], h, b),
    ),
}


@pytest.mark.parametrize("name", sampled(STARTS, every=2))
@pytest.mark.parametrize(
    "method",
    [rfho.ReverseHyperGradient(), ForwardHyperGradient(chunk=1)],
    ids=["reverse", "forward"],
)
def test_of_a_model_the_arrays_are_trained_and_the_rest_stays(name, method):
    init, loss, objective = STARTS[name]
    found = rfho.hyper_gradient(problem(descent(init, loss), objective), HYPER, method)
    close(found.hypergradient, rfho.hyper_gradient(split_by_hand(), HYPER).hypergradient)


def test_results_hold_the_model():
    found = rfho.train(problem(descent(NET)), HYPER)
    assert isinstance(found.params, SplitModel)
    net = found.params.model
    assert isinstance(net, Net)
    assert net.doubled is True
    assert net.name == "net"
    np.testing.assert_allclose(score(net, HYPER, (X, Y)), found.value, rtol=1e-12)


def test_trained_parameters_are_called_as_the_model_is_and_training_may_begin_with_them():
    found = rfho.train(problem(descent(NET)), HYPER)
    np.testing.assert_array_equal(jax.vmap(found.params)(X), jax.vmap(found.params.model)(X))
    again = rfho.train(problem(descent(found.params)), HYPER)
    assert again.value < found.value
    np.testing.assert_array_equal(
        again.value, rfho.train(problem(descent(found.params.model)), HYPER).value
    )


def test_models_of_many_tasks_are_trained_side_by_side():
    data = (jnp.stack([X, -X]), jnp.stack([Y, Y]))
    many = rfho.over_tasks(problem(descent(NET)), (data, data))
    by_hand = rfho.over_tasks(split_by_hand(), (data, data))
    found, expected = rfho.hyper_gradient(many, HYPER), rfho.hyper_gradient(by_hand, HYPER)
    close((found.value, found.hypergradient), (expected.value, expected.hypergradient))


def test_a_model_of_arrays_alone_is_left_as_it_is():
    linear = eqx.nn.Linear(3, 1, key=KEY)
    assert isinstance(descent(linear).init(HYPER).params, eqx.nn.Linear)


def test_equinox_batch_statistics_are_carried():
    class Normed(eqx.Module):
        linear: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        activation: object

        def __init__(self, key):
            self.linear = eqx.nn.Linear(3, 4, key=key, dtype=jnp.float64)
            self.norm = eqx.nn.BatchNorm(4, "batch", mode="ema", momentum=0.9, dtype=jnp.float64)
            self.activation = jnp.tanh

        def __call__(self, x, state):
            x, state = self.norm(self.linear(x), state)
            return self.activation(x).sum(), state

    model, state = eqx.nn.make_with_state(Normed)(KEY)

    def run(net, x, state):
        batched = jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return batched(x, state)

    def loss(variables, hyper, batch):
        net, state = variables
        out, state = run(net, batch[0], state)
        return jnp.mean((out - batch[1]) ** 2) + hyper["l2"] * jnp.sum(net.linear.weight**2), state

    def objective(variables, hyper, batch):
        net, state = variables
        return jnp.mean((run(eqx.nn.inference_mode(net), batch[0], state)[0] - batch[1]) ** 2)

    dynamics = descent(rfho.Variables(model, state), loss, has_aux=True)
    assert rfho.check_hyper_gradient(problem(dynamics, objective), HYPER, directions=1).agrees


REFUSED = {
    "an integer": (
        {"w": jnp.ones(2), "n": 3},
        r'init\["n"\] has dtype int\d+, but what is trained',
    ),
    "a flag": ([jnp.ones(2), True], r"init\[1\] has dtype bool"),
    "a key": ([jnp.ones(2), KEY], r"init\[1\] has dtype key<fry>"),
    "a function": ({"f": jnp.tanh, "w": jnp.ones(2)}, r'init\["f"\] is a .*start.* from arrays'),
    "a word": ({"w": "glorot"}, r'init\["w"\] is a str'),
    "integers in a model": (
        eqx.tree_at(lambda net: net.scale, NET, jnp.arange(3)),
        r"init\.scale has dtype int",
    ),
    "a carried word": (
        rfho.Variables(jnp.ones(2), {"mode": "train"}),
        r'init\.carried\["mode"\] is a str',
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("made", [False, True], ids=["given", "made by a function"])
def test_what_cannot_be_trained_is_named_by_its_path(name, made):
    init, words = REFUSED[name]
    with pytest.raises(TypeError, match=words):
        descent((lambda hyper: init) if made else init).init(HYPER)


@pytest.mark.usefixtures("unchecked")
def test_heavy_ball_names_them_too():
    momentum = lambda hyper, t: 0.9  # noqa: E731
    with pytest.raises(TypeError, match=r"init\[1\] has dtype int"):
        rfho.HeavyBall(square, momentum, momentum, init=[jnp.ones(2), 1])


def foreign(module, name):
    """A callable model as that framework would have it, without the framework."""
    base = type(name, (), {"__module__": module, "__call__": lambda self, x: x})
    return type("MyModel", (base,), {})()


MODELS = {
    ("flax.nnx.module", "Module"): r"rfho\.adapters\.nnx\.network\(model\)",
    ("flax.linen.module", "Module"): r"rfho\.adapters\.linen\.network",
    ("keras.src.layers.layer", "Layer"): r"stateless_call",
    ("torch.nn.modules.module", "Module"): r"torchax\.extract_jax",
    ("haiku._src.transform", "Transformed"): r"rfho\.adapters\.haiku\.network",
    ("tensorflow.python.module.module", "Module"): r"tf2jax",
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model[0])
@pytest.mark.parametrize("made", [False, True], ids=["given", "made by a function"])
def test_models_that_hold_their_arrays_are_told_what_to_write(model, made):
    init = foreign(*model)
    with pytest.raises(TypeError, match=rf"init is a MyModel, a model of .*{MODELS[model]}"):
        descent((lambda hyper: init) if made else init).init(HYPER)


def test_a_class_of_ones_own_is_a_function():
    class Start:
        def __call__(self, hyper):
            return ARRAYS

    assert isinstance(descent(Start()).init(HYPER).params, Net)


def of_complex(w, hyper, batch):
    return jnp.sum(jnp.abs(w - (1 + 2j)) ** 2) * hyper["l2"] + jnp.sum(jnp.real(w**3))


COMPLEX = jnp.asarray([0.5 + 0.2j, 1j])


@pytest.mark.parametrize("keep", list(Keep), ids=lambda keep: keep.value)
@pytest.mark.parametrize("kind", ["Descent", "HeavyBall", "rfho.grad"])
def test_complex_parameters_are_right(kind, keep):
    rate, momentum = (lambda hyper, t: hyper["lr"]), (lambda hyper, t: 0.9)
    dynamics = {
        "Descent": rfho.Descent(of_complex, lambda h: optax.adam(h["lr"], eps_root=1e-6), COMPLEX),
        "HeavyBall": rfho.HeavyBall(of_complex, rate, momentum, init=COMPLEX),
        "rfho.grad": rfho.Dynamics(
            lambda hyper: COMPLEX,
            lambda w, h, b: w - h["lr"] * rfho.grad(of_complex)(w, h, b),
        ),
    }[kind]
    final = lambda w, hyper, batch: jnp.sum(jnp.abs(w) ** 2)  # noqa: E731

    def f(hyper):
        state = dynamics.init(hyper)
        for _ in range(4):
            state = dynamics.step(state, hyper, None)
        return final(dynamics.output(state), hyper, None)

    method = rfho.ReverseHyperGradient(rfho.StoreAll(keep))
    found = rfho.hyper_gradient(problem(dynamics, final), HYPER, method)
    close(found.hypergradient, jax.grad(f)(HYPER))


def test_integers_hold_no_complex_parameters():
    rate = lambda hyper, t: 0.1  # noqa: E731
    dynamics = rfho.ReversibleDescent(of_complex, rate, rate, init=COMPLEX)
    with pytest.raises(TypeError, match=r"use rfho\.HeavyBall, or real and imaginary parts"):
        dynamics.init(HYPER)


# What reaches the start alone

STARTED = rfho.Problem(
    rfho.Descent(
        lambda w, hyper, batch: jnp.sum((w - 1) ** 2),
        lambda hyper: optax.sgd(hyper["lr"]),
        lambda hyper: hyper["start"],
    ),
    lambda w, hyper, batch: jnp.sum(w**2),
    horizon=6,
)
START = {"lr": 0.1, "start": jnp.array([0.5, -1.0])}
BLIND = (
    rfho.TruncatedHyperGradient(3),
    rfho.OnlineTruncatedHyperGradient(2, 2),
    rfho.WarmRestartHyperGradient(rfho.ReverseHyperGradient()),
)


@pytest.mark.parametrize("method", BLIND, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("verb", [rfho.tune, rfho.hyper_gradient])
def test_a_start_that_the_method_does_not_go_back_to_is_refused(verb, method):
    with pytest.raises(ValueError, match=r'hyper\["start"\] reaches the initial state alone'):
        verb(STARTED, START, method=method)
    fixed = {"lr": rfho.Reals(), "start": rfho.Fixed()}
    assert verb(STARTED, START, method=method, domain=fixed).value > 0


def test_the_first_estimate_of_real_time_has_come_from_the_start():
    method = rfho.RealTimeHyperGradient(6)
    found = rfho.hyper_gradient(STARTED, START, method).hypergradient
    exact = rfho.hyper_gradient(STARTED, START).hypergradient
    np.testing.assert_allclose(found["start"], exact["start"], rtol=1e-12)
    with pytest.raises(ValueError, match="reaches the initial state alone"):
        rfho.tune(STARTED, START, method=method)
