"""Ctrl-C and SIGTERM as a wish that a loop looks at where nothing is half done.

An exception out of a signal handler can come anywhere, in the middle of a save or of JAX, and what was
finished is lost with it. So a handler only notes the wish, and the loop ends at the next place that suits: after
the outer step, or after the segment of a method that is driven from Python. A second signal does not wait for
the program that goes on: it is left to itself. A compilation is never interrupted.
"""

import atexit
import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import jax

from rfho._programs.begun import is_there
from rfho.typing import PyTree

LONG = 2.0
"""Seconds after which whoever waits for a program is told what signals do meanwhile."""

_SHORT = 0.01
"""Where the last program took fewer seconds, the next is waited for without looking for signals."""

_PATIENCE = 2  # a third signal does what it would do without us

TERMINATED = 128 + signal.SIGTERM
"""The exit code of a process that SIGTERM has ended."""


class StopSignals:
    """Notes SIGINT and SIGTERM while it is `watching`, in the main thread alone.

    A handler that somebody else has set stays.

    Args:
        on_second: is called by the handler of the second signal: who is about to save need not.
    """

    def __init__(self, on_second: Callable[[], None] = lambda: None) -> None:
        self.received: list[int] = []
        self._on_second = on_second
        self._last = math.inf

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """Notes signals within the block."""
        replaced = list(self._replaced()) if _in_main_thread() else []
        try:
            yield
        finally:
            for number, handler in replaced:
                signal.signal(number, handler)

    def look(self) -> None:
        """Ends the loop if that is wished.

        Raises:
            KeyboardInterrupt: a signal has come.
        """
        if self.received:
            raise KeyboardInterrupt

    def wait(
        self, computed: PyTree, *, long: Callable[[], None], first: Callable[[], None]
    ) -> None:
        """Until a program has computed something, unless a second signal comes.

        Args:
            computed: its results, some of which may be there.
            long: is called once it has taken `LONG` seconds.
            first: is called once the first signal has come.

        Raises:
            KeyboardInterrupt: the second signal has come. The program computes on, and the process does not wait
                for it when it ends.
        """
        if _pending(computed) is None:
            return
        begin = time.monotonic()
        if self._last < _SHORT:
            jax.block_until_ready(computed)
        while (pending := _pending(computed)) is not None:
            elapsed = time.monotonic() - begin
            if elapsed > LONG:
                long()
            if self.received:
                first()
            if len(self.received) >= _PATIENCE:
                atexit.register(_end_without, pending, 128 + self.received[-1])
                self.look()
            time.sleep(min(0.05, max(2e-4, elapsed / 50)))
        self._last = time.monotonic() - begin

    def leave(self) -> None:
        """Lets the process end as SIGTERM wants it, once the loop has ended; after Ctrl-C it may go on.

        Raises:
            SystemExit: with the code 143, if SIGTERM has come.
        """
        if signal.SIGTERM in self.received:
            raise SystemExit(TERMINATED)

    def _replaced(self) -> Generator[tuple[int, Any]]:
        usual = {
            signal.SIGINT: (signal.default_int_handler,),
            signal.SIGTERM: (signal.SIG_DFL, _terminate),
        }
        for number, handlers in usual.items():
            if signal.getsignal(number) in handlers:
                yield number, signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.received.append(number)
        if len(self.received) == _PATIENCE:
            self._on_second()
        if len(self.received) > _PATIENCE:
            raise KeyboardInterrupt


@contextlib.contextmanager
def ended_by_sigterm() -> Generator[None]:
    """SIGTERM ends the block with `SystemExit`, so that what has to be said at its end is said.

    Within an outer loop it is noted as everywhere else.
    """
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _pending(computed: PyTree) -> jax.Array | None:
    """What is still to be computed."""
    arrays = (leaf for leaf in jax.tree.leaves(computed) if isinstance(leaf, jax.Array))
    return next((array for array in arrays if not is_there(array)), None)


def _end_without(pending: jax.Array, code: int) -> None:
    """Ends the process where JAX would wait for what nobody waits for any more."""
    if is_there(pending):
        return
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _terminate(number: int, frame: Any) -> None:
    raise SystemExit(TERMINATED)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
