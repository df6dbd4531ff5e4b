"""Fingerprints of runs: equal for the same run in another process, and each change is named where it is."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rfho
from rfho.outer.identity import differences, fingerprint

SCALE = 2.0


def helper(w):
    return SCALE * w


def loss(w, hyper, batch):
    """The loss."""
    return jnp.sum(helper(w) ** 2) * hyper["l2"]


def of(**parts):
    return fingerprint(**parts)


def changed(before, after):
    return differences(of(x=before), of(x=after))


def problem(data=np.arange(3.0), function=loss, horizon=3):
    dynamics = rfho.Descent(function, lambda hyper: optax.adam(hyper["lr"]), jnp.zeros(3))
    return rfho.Problem(dynamics, function, train=data, horizon=horizon)


class TestSame:
    def test_the_same_again(self):
        assert not changed(problem(), problem())

    def test_in_another_process(self):
        program = (
            "import json, optax, test_identity as t\n"
            "print(json.dumps(t.fingerprint(p=t.problem(), optim=optax.adam(0.1), f=t.loss)))"
        )
        environment = os.environ | {
            "JAX_ENABLE_X64": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        }
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        here = fingerprint(p=problem(), optim=optax.adam(0.1), f=loss)
        there = json.loads(done.stdout)
        assert differences(there, here) == []

    def test_comments_and_line_breaks_do_not_count(self, tmp_path):
        texts = [
            "def f(w):\n    return w + 1\n",
            "def f( w ):  # one more\n\n    return (w\n      + 1)\n",
        ]
        one, other = (imported(tmp_path, f"m{i}", text).f for i, text in enumerate(texts))
        assert not changed(one, other)

    def test_the_same_lambda_in_another_line(self, tmp_path):
        texts = ["f = lambda w: w + 1\n", "\n\ng, f = lambda w: w - 1, lambda w:w+1\n"]
        one, other = (imported(tmp_path, f"l{i}", text).f for i, text in enumerate(texts))
        assert not changed(one, other)

    def test_what_has_no_text(self):
        made = {}
        exec("f = lambda w: w + 1\ng = lambda w: w + 1\nh = lambda w: w + 2", made)
        assert not changed(made["f"], made["g"])
        assert changed(made["f"], made["h"])


def imported(folder, name, text):
    import importlib.util

    (folder / f"{name}.py").write_text(text)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestChanges:
    @pytest.mark.parametrize(
        ("before", "after", "said"),
        [
            (0.1, 0.2, "x (settings) was 0.1 and is 0.2"),
            ({"a": 1}, {"a": 1, "b": 2}, "x.b (settings) is new"),
            ({"a": 1, "b": 2}, {"a": 1}, "x.b (settings) is gone"),
            (np.arange(3), np.arange(3.0), "x (data) is another one"),
            (np.arange(3), np.arange(4), "x (data) is another one"),
            (jnp.arange(3), jnp.arange(3).at[1].set(5), "x (data) is another one"),
            (jax.random.key(0), jax.random.key(1), "x (data) is another one"),
            (optax.adam(0.1), optax.adam(0.2), "step_size (settings) was -0.1 and is -0.2"),
            (optax.adam(0.1), optax.sgd(0.1), "is another one"),
            (lambda w: w, lambda w: -w, "x (functions) is another one"),
            (functools.partial(max, 1), functools.partial(max, 2), "was 1 and is 2"),
            (functools.partial(max, 1), functools.partial(min, 1), "is another one"),
            (rfho.Positive(), rfho.NonNegative(), "was 'Positive' and is 'NonNegative'"),
            (jax.jit(lambda w: w), jax.jit(lambda w: 2 * w), "x (functions) is another one"),
            (rfho.Stream(np.arange(4), 2, 0), rfho.Stream(np.arange(4), 1, 0), "was 2 and is 1"),
            ("a" * 300, "b" * 300, "x (settings) was "),
        ],
    )
    def test_it_is_named(self, before, after, said):
        assert any(said in sentence for sentence in changed(before, after))

    def test_what_a_function_closes_over(self):
        def made(rate, table):
            return lambda w: rate * w + table

        assert "x.rate (settings) was 1 and is 2" in changed(made(1, None), made(2, None))
        arrays = changed(made(1, np.zeros(2)), made(1, np.ones(2)))
        assert arrays == ["x.table (data) is another one"]

    def test_what_a_function_calls(self, monkeypatch):
        before = of(x=loss)
        monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
        assert differences(before, of(x=loss)) == ["x.helper.SCALE (settings) was 2.0 and is 3.0"]
        monkeypatch.setattr(sys.modules[__name__], "helper", lambda w: w)
        assert "x.helper (functions) is another one" in differences(before, of(x=loss))

    def test_default_arguments(self):
        one, other = (lambda w, n=1: w * n), (lambda w, n=2: w * n)
        assert any("was 1 and is 2" in sentence for sentence in changed(one, other))

    def test_of_a_large_array_a_block_is_enough(self, monkeypatch):
        from rfho.outer import identity as module

        monkeypatch.setattr(module, "_WHOLE", 1000)
        monkeypatch.setattr(module, "_BLOCK", 64)
        array = np.zeros(10_000)
        other = array.copy()
        other[-1] = 1
        assert changed(array, other) == ["x (data) is another one"]
        assert not changed(array, array.copy())

    def test_a_ring_ends(self):
        ring: dict = {"a": 1}
        ring["self"] = ring
        assert of(x=ring)["settings"] == {"x.a": "1"}

    def test_the_versions_and_the_device(self, monkeypatch):
        before = of(x=1)
        before["versions"]["jax"] = "0.1"
        before["device"]["kind"] = "tpu"
        said = differences(before, of(x=1))
        assert said[0] == f"jax (versions) was 0.1 and is {jax.__version__}"
        assert said[1].startswith("kind (device) was tpu and is cpu")


class TestAllowed:
    @pytest.mark.parametrize("allow", [["jax", "x"], ["versions", "settings"], ["jax", "settings"]])
    def test_by_name_or_section(self, allow):
        before = of(x=1)
        before["versions"]["jax"] = "0.1"
        assert len(differences(before, of(x=2))) == 2
        assert differences(before, of(x=2), allow=allow) == []
