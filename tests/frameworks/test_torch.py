"""PyTorch, computed in JAX by torchax, against PyTorch itself."""

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest

pytestmark = pytest.mark.frameworks
torch = pytest.importorskip(
    "torch", reason="torch is not installed: make test-frameworks installs it"
)
pytest.importorskip("torchax", reason="torchax is not installed: make test-frameworks installs it")

from rfho.adapters.torch import network  # noqa: E402

nn = torch.nn
NORM = plain.Norm(epsilon=1e-5, unbiased=True)


def built(dropout=0.0):
    model = nn.Sequential(
        nn.Linear(plain.INPUTS, plain.WIDTH),
        nn.BatchNorm1d(plain.WIDTH, momentum=1 - plain.MOMENTUM),
        nn.Tanh(),
        nn.Dropout(dropout),
        nn.Linear(plain.WIDTH, plain.CLASSES),
    ).double()
    w = plain.drawn()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), w._replace(a=w.a.T, b=w.b.T), strict=True):
            parameter.copy_(torch.tensor(np.asarray(value)))
    return model


def kernels(params):
    return params["0.weight"], params["4.weight"]


def test_the_hypergradient_is_that_of_the_plain_network():
    plain.assert_equal_to_plain(network(built()), kernels, NORM)


def test_the_hypergradient_with_dropout_is_that_of_finite_differences():
    plain.assert_right_with_dropout(network(built(dropout=0.2)), kernels)


def own_loop():
    model = built()
    rate = float(plain.HYPER["lr"])
    optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    decays = [float(decay) for decay in plain.HYPER["decay"]]
    weights = torch.sigmoid(torch.tensor(np.asarray(plain.HYPER["weights"])))
    for x, y, index, _ in plain.batches():
        optimiser.zero_grad()
        logits = model(torch.tensor(x))
        each = nn.functional.cross_entropy(logits, torch.tensor(y), reduction="none")
        decay = sum(d * (model[i].weight ** 2).sum() for d, i in zip(decays, (0, 4), strict=True))
        ((weights[torch.tensor(index)] * each).mean() + decay).backward()
        optimiser.step()
    model.eval()
    x, y = plain.VALID
    return nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y)).item()


def test_it_trains_as_its_own_loop_does():
    plain.assert_trains_as(network(built()), kernels, own_loop)


def moved(model, x):
    """Buffers after two training calls, by PyTorch and by the network."""
    net = network(model)
    carried = net.carried
    for seed in range(2):
        model.train()
        model(torch.tensor(x))
        _, carried = net.apply(net.params, carried, x, jax.random.key(seed))
    return {name: leaf.numpy() for name, leaf in model.named_buffers()}, carried


class Count(nn.Module):
    """Buffers that are changed in place, and put in place anew."""

    def __init__(self):
        super().__init__()
        self.register_buffer("inside", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("anew", torch.zeros(3, dtype=torch.float64))

    def forward(self, x):
        self.inside.add_(x.mean(0))
        self.anew = 0.5 * self.anew + x.mean(0)
        return x


BUFFERS = {
    "a batch": (nn.BatchNorm1d(3), (8, 3)),
    "images": (nn.BatchNorm2d(3), (4, 3, 5, 5)),
    "volumes": (nn.BatchNorm3d(3), (2, 3, 2, 2, 2)),
    "the mean over all batches": (nn.BatchNorm1d(3, momentum=None), (8, 3)),
    "without an affine map": (nn.BatchNorm1d(3, affine=False), (8, 3)),
    "inside a module": (nn.Sequential(nn.Sequential(nn.BatchNorm1d(3))), (8, 3)),
    "one's own": (Count(), (8, 3)),
}


@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_move_as_in_pytorch(name):
    model, shape = BUFFERS[name]
    theirs, ours = moved(model.double(), np.random.default_rng(0).normal(size=shape))
    assert set(theirs) == set(ours)
    for path, leaf in theirs.items():
        np.testing.assert_allclose(ours[path], leaf, rtol=1e-12, err_msg=path)


def test_frozen_parameters_are_not_trained():
    model = built()
    model[0].weight.requires_grad_(False)
    net = network(model)
    assert "0.weight" not in net.params
    _, carried = net.apply(*net.variables, plain.X, jax.random.key(0))
    assert np.array_equal(carried["0.weight"], net.carried["0.weight"])


def test_instance_normalisation_with_statistics_is_refused():
    model = nn.Sequential(nn.InstanceNorm1d(3, track_running_stats=True))
    with pytest.raises(ValueError, match="0 is a InstanceNorm1d that tracks running statistics"):
        network(model)


def test_trained_values_go_back_into_the_model():
    model = built()
    net = network(model)
    _, carried = net.apply(*net.variables, plain.X, jax.random.key(0))
    assert float(jnp.abs(carried["1.running_mean"]).max()) > 0
    values = {**net.params, **carried}
    model.load_state_dict({name: torch.tensor(np.asarray(leaf)) for name, leaf in values.items()})
    model.eval()
    outputs, _ = net.apply(net.params, carried, plain.X, None)
    np.testing.assert_allclose(model(torch.tensor(plain.X)).detach(), outputs, rtol=1e-12)
