"""What does not fit is refused before anything runs, with the leaf's path and the remedy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.problem.validate import validate, without_effect

# Misuse is to meet the library's own words.
pytestmark = pytest.mark.usefixtures("unchecked")

HYPER = {"lr": 0.1, "nested": (0.5, {"l2": 1e-2})}


def loss(w, hyper, batch):
    return jnp.mean((w - batch) ** 2) + hyper["nested"][1]["l2"] * w**2


def optim(hyper):
    return optax.sgd(hyper["lr"], momentum=hyper["nested"][0])


DESCENT = rfho.Descent(loss, optim, jnp.zeros(()))


def problem_of(dynamics=DESCENT, objective=loss, train=(1.0, 2.0), valid=(3.0,), horizon=4):
    return rfho.Problem(dynamics, objective, np.asarray(train), np.asarray(valid), horizon)


# --- Hyperparameters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "kind", "message"),
    [
        (np.arange(3), TypeError, "dtype int64.*make it an array of floats, or mark it rfho.Fixed"),
        (jnp.zeros(2, bool), TypeError, "has dtype bool"),
        (1j, TypeError, "dtype complex128"),
        (float("nan"), ValueError, "is not finite"),
        (np.array([1.0, np.inf]), ValueError, "is not finite"),
    ],
)
def test_a_leaf_that_cannot_be_learned_is_named(leaf, kind, message):
    hyper = {"lr": 0.1, "nested": (0.5, {"l2": leaf})}
    with pytest.raises(kind, match=message) as caught:
        rfho.hyper_gradient(problem_of(), hyper)
    assert str(caught.value).startswith('hyper["nested"][1]["l2"]')


def test_no_hyperparameters_at_all_are_refused():
    with pytest.raises(ValueError, match="hyper has no leaves"):
        rfho.hyper_gradient(problem_of(), {})


def test_nothing_but_static_entries_is_refused():
    with pytest.raises(ValueError, match=r"every leaf of hyper is Fixed\(\) or static"):
        rfho.hyper_gradient(problem_of(), {"lr": 1, "act": "relu"})


def test_python_numbers_become_strong_arrays():
    free, _ = rfho.domains.Space.of(rfho.Reals(), HYPER).split(HYPER)
    assert all(not leaf.aval.weak_type for leaf in jax.tree.leaves(free))


@pytest.mark.parametrize(
    "hide",
    [
        jax.lax.stop_gradient,
        jax.jit(jax.lax.stop_gradient),
        lambda x: x.astype(jnp.int32).astype(x.dtype),
        jnp.round,
        lambda x: 0 * x.astype(bool),
    ],
    ids=["stop_gradient", "in a jit", "int", "round", "bool"],
)
def test_a_leaf_without_effect_is_named(hide):
    def hiding(w, hyper, batch):
        return jnp.mean((w - batch) ** 2) + hide(hyper["nested"][1]["l2"]) * w**2

    problem = problem_of(rfho.Descent(hiding, optim, jnp.zeros(())), hiding)
    with pytest.raises(ValueError, match="look for a stop_gradient or a cast to int") as caught:
        rfho.hyper_gradient(problem, HYPER)
    assert str(caught.value).startswith('hyper["nested"][1]["l2"] reaches neither')


def test_a_leaf_that_is_not_used_is_named():
    problem, hyper = problem_of(), HYPER | {"spare": 1.0}
    with pytest.raises(ValueError, match=r'hyper\["spare"\] reaches neither'):
        validate(problem, hyper)


def test_an_effect_through_control_flow_or_the_initial_state_is_seen():
    def step(state, hyper, batch):
        decayed = jax.lax.fori_loop(0, 3, lambda i, s: s * hyper["decay"], state)
        return jax.lax.cond(decayed > 0, lambda s: s, lambda s: s * hyper["slope"], decayed)

    dynamics = rfho.Dynamics(lambda hyper: hyper["start"] ** 2, step)
    problem = rfho.Problem(dynamics, lambda w, hyper, batch: w, None, None, horizon=2)
    hyper = jax.tree.map(jnp.asarray, {"decay": 0.9, "slope": 0.1, "start": 1.0})
    assert without_effect(problem, hyper) == []


def test_an_effect_on_the_objective_alone_is_enough():
    problem = problem_of(objective=lambda w, hyper, batch: w**2 * hyper["bonus"])
    validate(problem, HYPER | {"bonus": 1.0})


# --- States and objectives ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            lambda s, h, b: {"w": (s["w"] * h).astype(jnp.float32)},
            'turned state.*"w".* from float64',
        ),
        (lambda s, h, b: {"w": jnp.stack([s["w"] * h] * 2)}, r"into float64\[2\]"),
        (lambda s, h, b: {"w": s["w"] * h, "new": h}, "structure of the first"),
    ],
    ids=["dtype", "shape", "structure"],
)
def test_a_step_that_changes_the_kind_of_state_is_refused(step, message):
    dynamics = rfho.Dynamics(lambda hyper: {"w": hyper}, step)
    problem = rfho.Problem(dynamics, lambda s, h, b: s["w"], None, None, horizon=3)
    with pytest.raises(TypeError, match=message):
        rfho.hyper_gradient(problem, 0.5)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            lambda w, hyper, batch: w - batch,
            r"float64\[1\], but it must return a floating-point scalar",
        ),
        (lambda w, hyper, batch: jnp.round(w).astype(int), r"int64\[\]"),
    ],
)
def test_an_objective_must_be_a_scalar(objective, message):
    with pytest.raises(TypeError, match=message):
        validate(problem_of(objective=objective), HYPER)


def test_a_loss_must_be_a_scalar():
    dynamics = rfho.Descent(lambda w, hyper, batch: (w - batch) ** 2, optim, jnp.zeros(()))
    with pytest.raises(TypeError, match=r"loss returned float64\[2\], but it must return"):
        validate(problem_of(dynamics), HYPER)


@pytest.mark.parametrize(
    "objective",
    [{"lr": loss}, {"lr": loss, "other": loss}, (loss, loss), {"lr": {"a": loss}, "nested": loss}],
)
def test_objectives_must_be_a_prefix_of_the_hyperparameters(objective):
    with pytest.raises(ValueError, match="must be a function or a tree prefix of hyper"):
        validate(problem_of(objective=objective), HYPER)


@pytest.mark.parametrize("objective", [3.0, "error", {"lr": loss, "nested": 1}, {}, None])
def test_objectives_must_be_functions(objective):
    with pytest.raises(TypeError, match=r"must be a function \(params, hyper, batch\) -> scalar"):
        problem_of(objective=objective)


# --- The problem itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", [0, -1, 1.5, 2.0, True, "10"])
def test_the_horizon_must_be_a_positive_int(horizon):
    with pytest.raises(ValueError, match="it must be an int of 1 or more"):
        problem_of(horizon=horizon)


@pytest.mark.parametrize("name", ["train", "valid"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((0, 3)), r"has shape \(0, 3\), but there must be at least one example"),
        (np.array([1.0, np.nan]), "holds a NaN or an infinity: clean the data first"),
    ],
)
def test_data_must_be_there_and_finite(name, data, message):
    data = {"train": np.ones(2), "valid": np.ones(2)} | {name: {"x": data}}
    with pytest.raises(ValueError, match=message) as caught:
        rfho.Problem(DESCENT, loss, **data, horizon=2)
    assert str(caught.value).startswith(f'{name}["x"]')


def test_dynamics_must_be_dynamics():
    with pytest.raises(TypeError, match=r"it must be a rfho\.Descent or a rfho\.Dynamics"):
        problem_of(dynamics=loss)


def test_the_problem_must_be_a_problem():
    with pytest.raises(TypeError, match=r"where a rfho\.Problem was expected"):
        rfho.hyper_gradient(DESCENT, HYPER)


def test_an_optimiser_must_be_built_from_the_hyperparameters():
    with pytest.raises(TypeError, match=r"optim=lambda hyper: optax\.sgd"):
        rfho.Descent(loss, optax.sgd(0.1), jnp.zeros(()))


@pytest.mark.parametrize("field", ["init", "step", "output"])
def test_dynamics_are_made_of_functions(field):
    functions = {"init": loss, "step": loss, "output": loss} | {field: 1.0}
    with pytest.raises(TypeError, match=f"{field} must be a function"):
        rfho.Dynamics(**functions)


# --- Batches ------------------------------------------------------------------------------------------


def test_arrays_are_the_same_batch_at_every_step():
    problem = problem_of()
    np.testing.assert_array_equal(problem.train_batch(0), problem.train_batch(3))


def test_functions_give_the_batch_of_a_step_and_of_an_outer_step():
    problem = rfho.Problem(DESCENT, loss, lambda t: t * 1.0, lambda k: -k * 1.0, horizon=2)
    assert problem.train_batch(3) == 3
    assert problem.valid_batch() == 0
    assert problem.at(5).valid_batch() == -5
    assert problem.later(10).later(2).train_batch(3) == 15


def test_data_are_leaves_of_the_problem():
    """Never closed over: other data of the same shape need no other program."""
    problem = rfho.Problem(DESCENT, loss, rfho.Stream(np.ones(7), 2, key=0), np.ones(9), horizon=2)
    shapes = [leaf.shape for leaf in jax.tree.leaves(problem) if isinstance(leaf, jax.Array)]
    assert (7,) in shapes
    assert (9,) in shapes


class TestEquinoxModel:
    """A model is a pytree of parameters though it can be called."""

    MODEL = eqx.filter(eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0)), eqx.is_array)

    def test_its_parameters_are_where_training_starts(self):
        dynamics = rfho.Descent(self.fit, lambda hyper: optax.sgd(hyper["lr"]), self.MODEL)
        problem = rfho.Problem(dynamics, self.fit, jnp.ones((4, 2)), jnp.ones((3, 2)), horizon=2)
        assert rfho.check_hyper_gradient(problem, {"lr": jnp.asarray(0.1)}).agrees

    def test_a_function_of_hyper_may_still_be_a_partial_one_that_holds_arrays(self):
        start = eqx.Partial(lambda shift, hyper: shift + hyper["start"], jnp.ones(2))
        dynamics = rfho.Descent(self.fit, lambda hyper: optax.sgd(0.1), start)
        np.testing.assert_array_equal(dynamics.init({"start": 1.0}).params, [2.0, 2.0])

    def fit(self, model, hyper, batch):
        hidden, out = model.layers
        return jnp.mean((jnp.tanh(batch @ hidden.weight.T) @ out.weight.T - 1) ** 2)
