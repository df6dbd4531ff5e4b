"""Grain and Hugging Face's datasets: the batches of a step, from the step alone."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho

X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
Y = np.arange(24) % 2


def loss(w, hyper, batch):
    return jnp.mean((batch["x"] @ w - batch["y"]) ** 2)


def hypergradient(train):
    dynamics = rfho.Descent(loss, lambda hyper: optax.sgd(hyper["lr"]), jnp.zeros(3))
    problem = rfho.Problem(dynamics, loss, train, {"x": X, "y": Y}, horizon=8)
    return float(rfho.hyper_gradient(problem, {"lr": 0.1}).hypergradient["lr"])


def from_memory(batches):
    stacked = {
        name: jnp.asarray(np.stack([batch[name] for batch in batches])) for name in ("x", "y")
    }
    return lambda t: {name: rows[t] for name, rows in stacked.items()}


def of_grain():
    grain = pytest.importorskip("grain", reason="grain is not installed: pip install grain")
    source = [{"x": x, "y": y} for x, y in zip(X, Y, strict=True)]
    return grain.MapDataset.source(source).seed(5).shuffle().repeat().batch(4, drop_remainder=True)


def on_disk(folder, **columns):
    datasets = pytest.importorskip(
        "datasets", reason="datasets is not installed: pip install datasets"
    )
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"x": X, "y": Y} | columns).save_to_disk(folder)
    return datasets.load_from_disk(folder)


def test_grain_gives_the_batches_that_it_gives_in_a_row():
    from rfho.adapters.grain import stream

    dataset = of_grain()
    in_a_row = from_memory([dataset[t] for t in range(8)])
    assert hypergradient(stream(dataset)) == hypergradient(in_a_row)


def test_an_iterator_of_grain_is_refused_with_what_to_give():
    from rfho.adapters.grain import stream

    with pytest.raises(TypeError, match=r"gives a batch once.* before \.to_iter_dataset\(\)"):
        stream(of_grain().to_iter_dataset())


def test_a_filter_of_grain_leaves_holes_that_are_named():
    from rfho.adapters.grain import stream

    grain = pytest.importorskip("grain")
    holes = grain.MapDataset.source(X).filter(lambda x: False)
    with pytest.raises(ValueError, match="batch 0 of the dataset is empty"):
        stream(holes)


def test_rows_of_hugging_face_come_once_in_an_epoch_and_again_on_the_way_back(tmp_path):
    from rfho.adapters.huggingface import stream

    train = stream(on_disk(tmp_path, row=np.arange(24)), 5, key=1)
    epochs = [[int(i) for t in range(4) for i in train(4 * e + t)["row"]] for e in range(2)]
    assert len(set(epochs[0])) == len(set(epochs[1])) == 20
    assert epochs[0] != epochs[1]
    again = [train(t) for t in reversed(range(8))][::-1]
    assert [int(i) for batch in again[:4] for i in batch["row"]] == epochs[0]
    assert hypergradient(train) == hypergradient(from_memory(again))


def test_words_are_refused_by_their_column(tmp_path):
    from rfho.adapters.huggingface import stream

    with pytest.raises(TypeError, match=r'column "text" .* dataset\.remove_columns\("text"\)'):
        stream(on_disk(tmp_path, text=["a word"] * 24), 4, key=0)


def test_a_batch_has_no_more_rows_than_there_are(tmp_path):
    from rfho.adapters.huggingface import stream

    with pytest.raises(
        ValueError, match="size=25, but a batch must have between 1 and the 24 rows"
    ):
        stream(on_disk(tmp_path), 25, key=0)
