"""The parts of estimates over many devices: bytes on each of them, and bytes that each sends.

The tape is known from shapes and from how a placement cuts them. For the rest the compiler is asked, once for
each thing that a policy may keep, with a program of `_TURNS` steps: what it takes beside its tape is what it takes
with any number of steps, and one turn of its loops sends what each step sends.
"""

import functools
from typing import NamedTuple

import jax

from rfho._programs import trees as tree
from rfho._programs.avals import ShapedArray
from rfho._programs.collectives import sent_in_a_turn
from rfho._programs.compiled import buffers_of, compiled
from rfho._programs.roofline import Rates, Work
from rfho.choice.forecast import Back, Parts
from rfho.dynamics import Keep
from rfho.memory import AbstractCheckpoint, Span, StoreAll
from rfho.placement.layout import Devices, longest_that_divides
from rfho.problem.moment import AbstractMoment
from rfho.typing import Hyper, PyTree

_TURNS = 1009
"""Steps of the programs that the compiler is asked about: a prime, so that no loop of a model turns as often."""


class _Asked(NamedTuple):
    """What the compiler says: bytes beside arguments and results, and bytes that a step sends."""

    memory: int
    sent: int


class PartsOnDevices(Parts):
    """As `Parts`, of a problem that lies over devices; bytes are those of one of them.

    Attributes:
        devices: over which examples are cut.
        cut: whether parameters are cut as well, and what is made of them.
    """

    def __init__(
        self, problem: AbstractMoment, hyper: Hyper, rates: Rates, *, devices: Devices, cut: bool
    ) -> None:
        super().__init__(problem, hyper, rates)
        self.devices, self.cut = devices, cut
        self._of_training = functools.cache(self._asked_of_training)
        self._of_sweep = functools.cache(self._asked_of_sweep)

    @functools.cached_property
    def step(self) -> Work:
        """The work of a step, and what it sends."""
        return super().step._replace(sent=self._of_training().sent)

    @property
    def of_a_state(self) -> int:
        """Bytes of a state on a device."""
        return self.on_each(self.state)

    def on_each(self, like: PyTree) -> int:
        """Bytes on a device of parameters, or of what has their shapes."""
        avals = [ShapedArray(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(like)]
        return sum(tree.nbytes(aval) // self._parts(aval.shape) for aval in avals)

    def tape(self, policy: AbstractCheckpoint, span: Span) -> tuple[int, int]:
        """Bytes of a tape on a device, and in the host's memory for it."""
        here, host = 0, 0
        of_states = {leaf.shape for leaf in jax.tree.leaves(self.state)}
        for rows in self._blank(policy, span):
            row = rows.shape[1:]
            size = tree.nbytes(rows) // self._parts(row, like_parameters=row in of_states)
            on_host = rows.memory_space == jax.memory.Space.Host
            here, host = (here, host + size) if on_host else (here + size, host)
        return here, host

    def compiled(self, policy: AbstractCheckpoint, span: Span) -> int:
        """Bytes on a device of the whole program over ``span``, which the compiler is asked about."""
        return buffers_of(compiled(self._swept(policy, span), self.hyper))

    def _parts(self, shape: tuple[int, ...], *, like_parameters: bool = True) -> int:
        """Into how many parts an array is cut: one of activations by its examples, wherever parameters lie."""
        cut = self.cut or not like_parameters
        return (
            self.devices.number
            if cut and longest_that_divides(shape, self.devices) is not None
            else 1
        )

    def _back(self, keep: Keep) -> Back:
        """Each remembered step sends what a plain one does, and the way back what is left."""
        found = super()._back(keep)
        forth = self._of_training().sent
        back = max(0, self._of_sweep(keep).sent - forth)
        undone = None if found.invert is None else found.invert._replace(sent=forth)
        return found._replace(
            remember=found.remember._replace(sent=forth),
            pull_back=found.pull_back._replace(sent=back),
            invert=undone,
        )

    def _of_plain_steps(self, steps: int) -> int:
        return self._of_training().memory

    def _beside_tape(self, keep: Keep, span: Span) -> int:
        tape, _ = self.tape(StoreAll(keep), Span(0, _TURNS))
        return self._of_sweep(keep).memory - tape

    def _asked_of_training(self) -> _Asked:
        return _asked(compiled(self._trained(_TURNS), self.hyper))

    def _asked_of_sweep(self, keep: Keep) -> _Asked:
        return _asked(compiled(self._swept(StoreAll(keep), Span(0, _TURNS)), self.hyper))


def _asked(program: jax.stages.Compiled) -> _Asked:
    return _Asked(buffers_of(program), sent_in_a_turn(program.as_text() or "", _TURNS))
