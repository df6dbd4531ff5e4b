"""Choosing documents by metagradient descent, in miniature."""

import io
import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import rfho
from rfho.experiments.data_selection import DATA_SELECTION
from rfho.experiments.data_selection.choices import Rule, lowest, moved, order, unlikeness
from rfho.experiments.data_selection.documents import (
    KINDS,
    boilerplate,
    language,
    letters,
    load_documents,
    words,
)
from rfho.experiments.data_selection.learning import costs, derivative, training
from rfho.experiments.data_selection.settings import SelectionSettings
from rfho.experiments.parts.transformer import Transformer
from rfho.runs.experiment import execute
from rfho.runs.run_folder import create_run_folder
from rfho.runs.settings import SettingsError

SETTINGS = SelectionSettings(
    documents=32,
    held_out=8,
    context=8,
    pieces=2,
    width=8,
    heads=1,
    layers=0,
    rate=0.01,
    horizon=8,
    horizons=(2,),
    final=16,
)
TEXT = "To be, or not to be,\nthat is the question.  "


class TestRun:
    @pytest.fixture(scope="class")
    @staticmethod
    def folder(tmp_path_factory):
        folder = create_run_folder("selection", tmp_path_factory.mktemp("selection") / "run")
        console = Console(file=io.StringIO())
        execute(DATA_SELECTION, SETTINGS, folder, command="", console=console)
        return folder

    def test_every_method_has_its_row_and_learns_something(self, folder):
        rows = {row[0].partition(":")[0]: row for row in folder.table("loss").rows}
        assert list(rows) == [
            *("uniform", "perplexity filter", "similarity", "2 steps", "whole run"),
            *("whole run, by size", "clean alone"),
        ]
        assert all(1 < row[1] < math.log2(96) for row in rows.values())

    def test_who_chooses_for_less_trains_longer(self, folder):
        rows = {row[0].partition(":")[0]: row for row in folder.table("loss").rows}
        spent, steps = ({name: row[k] for name, row in rows.items()} for k in (2, 6))
        assert (
            spent["uniform"]
            == 0
            < spent["perplexity filter"]
            < spent["whole run"]
            < spent["2 steps"]
        )
        assert (
            steps["uniform"] > steps["perplexity filter"] > steps["whole run"] >= steps["2 steps"]
        )
        assert steps["2 steps"] == SETTINGS.final

    def test_filters_keep_as_many_as_are_clean_and_descent_drops_some(self, folder):
        left = {row["method"]: row["documents"] for row in folder.history()}
        assert all(0 < number < SETTINGS.documents for number in left.values())
        clean = next(row for row in folder.table("loss").rows if row[0].startswith("clean"))
        assert list(clean[3:6]) == [100, 100, 0]

    def test_one_run_a_round_has_as_many_runs(self, folder):
        by_size = [row for row in folder.history() if row["method"] == "whole run, by size"]
        assert [row["round"] for row in by_size] == [1, 2]
        spent = {row[0].partition(":")[0]: row[2] for row in folder.table("loss").rows}
        assert spent["whole run, by size"] == spent["whole run"]

    def test_the_whole_run_agrees_with_itself(self, folder):
        rows = {row[0]: row for row in folder.table("horizons").rows}
        assert rows["whole run"][2] == 1
        assert all(-1 < row[1] < 1 for row in rows.values())
        assert rows["2 steps"][2] < 1


class TestDerivative:
    """On eight documents, each seen once in four steps; held-out ones judge."""

    @pytest.fixture(scope="class")
    @staticmethod
    def documents():
        return np.random.default_rng(0).integers(0, 6, (12, 10), dtype=np.int32)

    @staticmethod
    def problem(documents, window):
        model = Transformer(6, 4, width=4, heads=1, layers=0, key=jax.random.key(0))
        index = np.array([[0, 1], [2, 3], [4, 5], [6, 7]], np.int32)
        return training(model, documents[:8], documents[8:], index, rate=0.05, window=window)

    @pytest.fixture(scope="class")
    @staticmethod
    def whole(documents):
        return derivative(TestDerivative.problem(documents, 4))

    def test_it_is_what_retraining_with_other_weights_says(self, documents, whole):
        problem, step = self.problem(documents, 4), 1e-4
        moves = step * jnp.concatenate([jnp.eye(8), -jnp.eye(8)])
        trained = eqx.filter_jit(jax.vmap(lambda move: rfho.train(problem, 1 + move).value))
        up, down = np.asarray(trained(moves)).reshape(2, 8)
        np.testing.assert_allclose(whole, (up - down) / (2 * step), rtol=1e-4, atol=1e-9)
        assert np.abs(whole).min() > 1e-6

    def test_a_piece_takes_what_came_before_as_given(self, documents, whole):
        pieces = derivative(self.problem(documents, 2))
        # The last piece is judged where the whole run is, by the same documents.
        np.testing.assert_allclose(pieces[4:], whole[4:], rtol=1e-9)
        assert np.abs(pieces[:4] / whole[:4] - 1).min() > 0.01

    def test_operations_are_counted(self, documents):
        problem = self.problem(documents, 2)
        counted = costs(problem)
        size = sum(leaf.size for leaf in jax.tree.leaves(problem.init(jnp.ones(8)).params))
        assert counted.step == pytest.approx(6 * size * 2 * 8, rel=0.6)  # of 2 x 8 characters
        assert 2.5 < counted.step / (2 * counted.score) < 4.5
        assert 1.5 < counted.pull_back / counted.step < 4
        judged = 2 * 4 * (counted.read + counted.score)
        expected = 4 * (2 * counted.step + counted.pull_back) + judged
        assert counted.of_derivative(problem) == pytest.approx(expected)


class TestChoices:
    ONE = Rule(starts=1, share=1.0, trust=0.0)

    def test_counts_go_against_the_sign_of_the_largest(self):
        found = np.array([[3.0, 0.0, -2.0, 1.0, 0.5]])
        after = moved(np.array([1, 0, 1, 2, 1]), found, self.ONE._replace(share=0.6))
        assert after.tolist() == [0, 0, 2, 1, 1]

    @pytest.mark.parametrize(
        ("trust", "expected"), [(0.0, [0, 0, 2]), (1.0, [0, 1, 2]), (3.0, [0, 1, 1])]
    )
    def test_what_is_not_sure_does_not_move(self, trust, expected):
        # Means of 3, 1 and -2, errors of 0.5, 2 and 1.
        found = np.array([[2.5, -1.0, -1.0], [3.5, 3.0, -3.0]])
        assert moved(np.ones(3, int), found, Rule(2, 1.0, trust)).tolist() == expected

    def test_a_step_that_would_leave_nothing_is_not_taken(self):
        assert moved(np.array([1, 1]), np.array([[1.0, 2.0]]), self.ONE).tolist() == [1, 1]

    def test_the_lowest_scores_are_kept(self):
        assert lowest(np.array([2.0, -1.0, 0.0]), 2).tolist() == [0, 1, 1]

    def test_an_epoch_has_each_document_as_often_as_it_counts(self):
        index = order(np.array([1, 0, 3]), 4, 2, np.random.default_rng(0))
        assert np.bincount(index[:2].ravel()).tolist() == [1, 0, 3]
        assert np.bincount(index[2:].ravel()).tolist() == [1, 0, 3]

    def test_shuffled_letters_are_less_like_the_target(self):
        generator = np.random.default_rng(0)
        clean, alphabet = coded(TEXT * 8, 32)
        found = unlikeness(np.concatenate([clean, letters(clean, alphabet, generator)]), clean)
        assert found[: len(clean)].max() < found[len(clean) :].min()


def coded(text, length):
    alphabet = "".join(sorted(set(text)))
    codes = np.array([alphabet.index(letter) for letter in text], np.int32)
    return codes[: len(codes) // length * length].reshape(-1, length), alphabet


class TestSpoiling:
    generator = np.random.default_rng(0)
    clean, alphabet = coded(TEXT * 4, len(TEXT))

    def text(self, codes):
        return "".join(self.alphabet[code] for code in codes)

    def test_letters_are_shuffled(self):
        spoilt = letters(self.clean, self.alphabet, self.generator)
        np.testing.assert_array_equal(np.sort(spoilt), np.sort(self.clean))
        assert np.mean(spoilt == self.clean) < 0.3

    def test_words_are_shuffled_between_blanks_that_stay(self):
        spoilt = [self.text(codes) for codes in words(self.clean, self.alphabet, self.generator)]
        for one in spoilt:
            assert sorted(one.split()) == sorted(TEXT.split())
            assert one.split() != TEXT.split()
            blanks = lambda text: [letter for letter in text if letter.isspace()]  # noqa: E731
            assert blanks(one) == blanks(TEXT)

    def test_another_language_replaces_every_letter_by_one(self):
        spoilt = language(self.clean, self.alphabet, self.generator)
        pairs = set(zip(self.clean.ravel().tolist(), spoilt.ravel().tolist(), strict=True))
        assert len(pairs) == len(self.alphabet)
        small = [pair for pair in pairs if self.alphabet[pair[0]].islower()]
        assert all(before != after and self.alphabet[after].islower() for before, after in small)
        assert all(a == b for a, b in pairs if not self.alphabet[a].isalpha())

    def test_boilerplate_is_one_of_three_notices_over_and_over(self):
        long, alphabet = coded(TEXT * 40, 130)
        spoilt = boilerplate(long, alphabet, self.generator)
        np.testing.assert_array_equal(spoilt[:, :90], spoilt[:, 40:])
        assert len({tuple(sorted(codes[:40].tolist())) for codes in spoilt}) <= 3


def test_what_judges_is_clean_and_not_trained_on():
    found = load_documents("packages", 50, count=80, held_out=10, spoilt=0.5, seed=0)
    assert np.bincount(found.kinds).tolist() == [40, 10, 10, 10, 10]
    assert len(KINDS) == 5
    every = np.concatenate([found.train[found.kinds == 0], found.valid, found.test])
    assert len(np.unique(every, axis=0)) == 60
    assert "import" in "".join(found.alphabet[code] for code in every.ravel())


@pytest.mark.parametrize(
    ("count", "spoilt", "message"), [(10**6, 0.5, "lower one of them"), (8, 0.9, "none is clean")]
)
def test_documents_that_there_are_not_are_refused(count, spoilt, message):
    with pytest.raises(SettingsError, match=message):
        load_documents("packages", 50, count=count, held_out=10, spoilt=spoilt, seed=0)


def test_so_few_may_be_spoilt_that_it_is_none():
    assert not load_documents("packages", 50, count=8, held_out=2, spoilt=0.1, seed=0).kinds.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 9, "heads": 2}, "must divide it"),
        ({"horizons": (5,)}, "5 must divide horizon = 8"),
        ({"starts": 1}, "says nothing of its error"),
        ({"share": 0.0}, "no document would move"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, tmp_path):
    folder = create_run_folder("selection", tmp_path / "run")
    with pytest.raises(SettingsError, match=message):
        DATA_SELECTION.run(replace(SETTINGS, **changes), folder, Console(file=io.StringIO()))
