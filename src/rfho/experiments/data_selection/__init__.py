r"""Which documents to learn from: metagradient descent for a language model (arXiv 2503.13751).

Some documents are spoilt, and nobody says which. The derivative of the loss on a few clean ones by the weight of
every document, through the whole of training,

.. math:: g_i = \frac{d E(w_T)}{d \lambda_i}\Big|_{\lambda = 1}, \qquad
          c_i \leftarrow \max(0, c_i - \mathrm{sign}\, \bar g_i)
          \;\text{ where }\; |\bar g_i| > \tau s_i,

says which documents to drop and which to repeat; the model is trained anew on the counts c, and so on. One
derivative says as much of the order in which its run saw the documents as of these: so :math:`\bar g` is the mean
over a few runs, s its error, and a document moves whose sign is sure. Beside it stand filters, derivatives that go
back a few steps only, and as many rounds of one run each in which the half of the largest derivatives moves. All
have the same number of operations, what they take to choose included: who chooses for less trains longer.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console

import rfho
from rfho.experiments.data_selection.choices import Rule
from rfho.experiments.data_selection.documents import KINDS
from rfho.experiments.data_selection.settings import SelectionSettings
from rfho.experiments.data_selection.trials import Trials
from rfho.experiments.parts.transformer import check_heads
from rfho.runs.experiment import Experiment
from rfho.runs.pictures import curves
from rfho.runs.run_folder import RunFolder
from rfho.runs.study import Record, Study, add_tables, grouped, tabulated
from rfho.runs.table import Table

SIMPLE = {
    "uniform": "all documents",
    "perplexity filter": "lowest loss of a model of held-out text",
    "similarity": "n-grams as in held-out text",
}
ONE_BY_ONE = "whole run, by size"
HALF = Rule(starts=1, share=0.5, trust=0.0)
ORACLE = {"clean alone": "told, not chosen"}
GROUPS = ("easy", "hard", *KINDS[1:])
BITS = "test loss, bits per character"
COLUMNS = {
    "method": None,
    BITS: 3,
    "to choose, % of operations": 1,
    "easy kept %": 0,
    "hard kept %": 0,
    "spoilt kept %": 0,
    "training steps": 0,
}


def run(settings: SelectionSettings, folder: RunFolder, console: Console) -> None:
    """All methods on every seed."""
    check_heads(settings.width, settings.heads)
    compiled: dict[tuple[int, int], rfho.Problem] = {}

    def on_seed(seed: int) -> Iterator[Record]:
        trials = Trials(settings, seed, compiled)
        for method, (counts, spent) in trials.simple().items():
            yield judged(trials, method, counts, spent)
        for window in (*settings.horizons, settings.horizon):
            yield descended(trials, named(window, settings), window, rule_of(settings), folder)
        yield descended(trials, ONE_BY_ONE, settings.horizon, HALF, folder)

    windows = (*settings.horizons, settings.horizon)
    methods = SIMPLE | {named(window, settings): "" for window in windows}
    methods |= {ONE_BY_ONE: f"{settings.rounds * settings.starts} rounds of one run"} | ORACLE
    cases = range(settings.seed, settings.seed + settings.repeats)
    study = Study(methods, cases, on_seed, COLUMNS)
    records = study.carry_out(folder, console)
    if records:
        add_pictures(folder, records, settings)
        told = f"{len(grouped(records, 'case'))} seeds, mean ± standard deviation; {described(settings)}"
        table = study.table(f"Choosing documents: {settings.data}", records, told)
        add_tables(folder, console, {"loss": table, "horizons": of_horizons(records, settings)})


def named(window: int, settings: SelectionSettings) -> str:
    """The method of a horizon."""
    return "whole run" if window == settings.horizon else f"{window} steps"


def rule_of(settings: SelectionSettings) -> Rule:
    """What a step moves."""
    return Rule(settings.starts, settings.share, settings.trust)


def descended(trials: Trials, method: str, window: int, rule: Rule, folder: RunFolder) -> Record:
    """The record of metagradient descent with a horizon, and what its first round found."""
    settings = trials.settings
    rounds = list(trials.descent(window, rule, settings.rounds * settings.starts // rule.starts))
    for number, (counts, _, _) in enumerate(rounds, 1):
        left = {"documents": int((counts > 0).sum())}
        folder.record({"seed": trials.seed, "method": method, "round": number} | left)
    first, (counts, _, spent) = rounds[0][1], rounds[-1]
    record = judged(trials, method, counts, spent)
    if method == ONE_BY_ONE:
        return record
    mean = first.mean(axis=0)
    wanted = {group: 100 * np.mean(mean[rows] < 0) for group, rows in trials.groups().items()}
    return record | {"horizon": window, "first": mean, "as another run": alike(first)} | wanted


def judged(trials: Trials, method: str, counts: np.ndarray, spent: float) -> dict[str, Any]:
    """The record of a choice: what a model came to that was trained on it, where held-out text says stop."""
    found = trials.trained(counts, spent)
    best = int(np.argmin(found["valid"]))
    groups = trials.groups()
    spoilt = trials.documents.kinds > 0
    kept = {"easy": groups["easy"], "hard": groups["hard"], "spoilt": spoilt}
    shares = {f"{name} kept %": 100 * np.mean(counts[rows] > 0) for name, rows in kept.items()}
    return {
        "method": method,
        BITS: found["test"][best],
        "to choose, % of operations": 100 * spent / trials.budget,
        **shares,
        "training steps": float(found["steps"][-1]),
        "runs": found["operations"] / (trials.settings.horizon * trials.costs.step),
        "curve": found["test"],
    }


def of_horizons(records: Sequence[Record], settings: SelectionSettings) -> Table:
    """Which documents the first derivative of each horizon is for, and whether it says what the whole run says."""
    whole = {r["case"]: r["first"] for r in records if r.get("horizon") == settings.horizon}
    rows = [
        {**r, "horizon": r["method"], "as the whole run": agreement(r["first"], whole[r["case"]])}
        for r in records
        if "horizon" in r and r["case"] in whole
    ]
    columns = {"horizon": None, "as another run": 2, "as the whole run": 2} | dict.fromkeys(
        GROUPS, 0
    )
    note = "% of the documents of a kind whose derivative is negative in the first round: more of them is wanted."
    return tabulated("What is chosen, by horizon", rows, columns, by="horizon", note=note)


def alike(derivatives: np.ndarray) -> float | None:
    """The mean agreement of every two runs."""
    pairs = [agreement(*pair) for pair in itertools.combinations(derivatives, 2)]
    return float(np.mean(pairs)) if pairs else None


def agreement(found: np.ndarray, whole: np.ndarray) -> float:
    """Spearman's rank correlation of two derivatives."""
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(found), rankdata(whole))[0, 1])


def add_pictures(folder: RunFolder, records: Sequence[Record], settings: SelectionSettings) -> None:
    """Loss by operations, and what is chosen by horizon."""
    by_method = grouped(records, "method")
    series = {name: np.stack([r["curve"] for r in rows]) for name, rows in by_method.items()}
    places = {name: rows[0]["runs"] for name, rows in by_method.items()}
    drawn = curves(
        series,
        places,
        x_label=f"operations, what choosing takes included, in runs of {settings.horizon} steps",
        y_label=BITS,
    )
    folder.add_picture(
        "loss", drawn, "Test loss by operations; a line begins where its choice is made."
    )
    with_horizon = [record for record in records if "horizon" in record]
    by_horizon = grouped(with_horizon, "horizon")
    full = len(grouped(with_horizon, "case"))
    known = {horizon: rows for horizon, rows in by_horizon.items() if len(rows) == full}
    if known:
        chosen = {g: np.array([[r[g] for r in rows] for rows in known.values()]).T for g in GROUPS}
        drawn = curves(
            chosen, np.array(list(known)), x_label="horizon, steps", y_label="wanted more of, %"
        )
        drawn.axes[0].set_xscale("log", base=2)
        folder.add_picture("horizons", drawn, "Documents with a negative derivative, by horizon.")


def described(settings: SelectionSettings) -> str:
    """What was run, for the note of the table."""
    return (
        f"{settings.documents} documents, {settings.spoilt:.0%} of them spoilt; the whole run has "
        f"T = {settings.horizon} steps; rounds = {settings.rounds}, starts = {settings.starts}; "
        "filters are told how many documents are clean."
    )


DATA_SELECTION = Experiment(
    name="data-selection",
    title="Which documents to learn from",
    summary=(
        "Drops and repeats documents by the derivative of the held-out loss through the whole training of a "
        "transformer (metagradient descent, arXiv 2503.13751), beside filters and short horizons, at equal cost."
    ),
    quick=SelectionSettings(),
    full=SelectionSettings(
        data="tiny-shakespeare",
        documents=2048,
        held_out=128,
        context=128,
        pieces=2,
        width=128,
        heads=4,
        layers=6,
        batch=16,
        rate=0.001,
        horizon=2048,
        horizons=(2, 16, 128),
        starts=4,
        final=4096,
        repeats=5,
    ),
    run=run,
)
