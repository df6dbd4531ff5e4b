"""What a healthy model is: nothing is found on it but what rounding moves, and nothing refused."""

import jax.numpy as jnp

import rfho
from rfho.checks import Kind


def assert_raises_no_alarm(network, inputs, target):
    """Diagnosed as `rfho check` does, after three steps of Adam on one batch."""

    def squares(outputs, target):
        return jnp.mean((jnp.mean(outputs.reshape(len(target), -1), 1) - target) ** 2)

    loss, objective = network.supervised(squares)
    dynamics = rfho.Descent(
        loss, lambda hyper: rfho.optim.adam(hyper["rate"]), network.variables, has_aux=True
    )
    train, valid = rfho.Keyed((inputs, target), key=1), (inputs, target + 0.1)
    problem = rfho.Problem(dynamics, objective, train, valid, horizon=3)
    found = rfho.diagnose(problem, {"rate": 0.01})
    # The gradient of a bias before batch normalisation is rounding, and Adam makes steps of full size of it.
    assert found.kinds <= {Kind.NOISE}, str(found)
