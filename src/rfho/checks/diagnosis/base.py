"""What a diagnosis is made of: findings, each with its kind, place, sentence and weight."""

import enum
from typing import NamedTuple


class Kind(enum.Enum):
    """What can be wrong, one sentence each.

    Example:
        >>> import rfho
        >>> rfho.checks.Kind.KEY_REUSE.value
        'a random key is used twice, so that what should be independent is equal'
    """

    EXPLOSION = "the signal grows from step to step on its way through training"
    CHAOS = "training is chaotic: its derivative says nothing about finite changes"
    NON_FINITE_TRAINING = "training itself becomes NaN or infinite"
    NON_FINITE_OBJECTIVE = "the objective is NaN or infinite though training is not"
    NON_FINITE_DERIVATIVE = "a derivative is NaN or infinite though the values are not"
    MASKED_DERIVATIVE = (
        "the way back meets a NaN that forward mode does not: a branch that is masked"
    )
    KINK = "the hypergradient jumps at this very point"
    ROUGH = "the hypergradient changes its sign between near points"
    NOISE = "a parameter moves by rounding: its gradient is zero, and the optimiser divides it by its size"
    NO_EFFECT = "a hyperparameter reaches nothing"
    ZERO_GRADIENT = "the hypergradient of a leaf is exactly zero"
    UNTRAINED = "a parameter is read by the objective and changed by nothing"
    STOPPED = "a stop_gradient hides from the hypergradient what training does"
    WRONG_DERIVATIVE = "a derivative is not that of what is computed"
    WRONG_SECOND_DERIVATIVE = "a second derivative of the inner loss is not that of its gradient"
    LOW_PRECISION = "training is computed in half precision, in which hypergradients drown"
    BATCH_NOT_REPLAYED = "the same step does not get the same batch again"
    HOST_RANDOMNESS = "a number comes from outside JAX and is frozen into the compiled program"
    KEY_REUSE = "a random key is used twice, so that what should be independent is equal"
    HIDDEN_STATE = "something is carried from step to step outside the state"
    TRUNCATION_BIAS = "the window is too short: a longer one gives another hypergradient"
    INEXACT = "the method's estimate is far from the hypergradient of the same run"
    UNCONVERGED = "training has not ended where the method takes it to have"
    REFUSED = "the method itself says that its estimate is useless"
    NOT_REVERSED = "steps that were undone did not lead back to where they came from"
    NOT_DIFFERENTIABLE = "training cannot be differentiated in this mode"
    MOVED_FAR = "one outer step moved a hyperparameter by several times itself"
    CHANGED_SIGN = "a positive hyperparameter became negative, and no domain forbids it"
    ON_ITS_BOUND = "a hyperparameter has moved to the bound of its domain and sits there"
    TAKEN_BACK = "outer steps led to a failure and are taken again, smaller"
    VALIDATION_FITTED = "the objective falls, and on data that nobody descends it rises"
    LONG_PROGRAM = "a program of an outer step takes so long that signals wait"
    OUTER_STEP_TOO_LARGE = "the outer loop jumps to and fro: its step is too large"


class Severity(enum.Enum):
    """How much a finding matters."""

    NOTE = "worth knowing"
    WARNING = "the hypergradient may mislead"
    ERROR = "the hypergradient is wrong, or not to be had"


class Where(NamedTuple):
    """Where something was found; each part is None where it makes no sense.

    Attributes:
        leaf: a path, as ``hyper["lr"]`` or ``state.params["w"]``.
        step: the inner step t = 0, …, T - 1, or the outer step k of `rfho.tune`.
    """

    leaf: str | None = None
    step: int | None = None


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        kind: what.
        where: the leaf and the step.
        message: what, where, why, and what to do.
        severity: how much it matters.
    """

    kind: Kind
    where: Where
    message: str
    severity: Severity = Severity.WARNING

    def __str__(self) -> str:
        return f"{self.severity.name.lower()}: {self.message}"


class HyperGradientWarning(UserWarning):
    """What `rfho.tune` warns of while it runs: `finding` says what, where, why and what to do."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding)  # what it is made of, so that it reaches other processes
        self.finding = finding

    def __str__(self) -> str:
        return self.finding.message
