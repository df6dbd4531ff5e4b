"""Ctrl-C and SIGTERM as a wish that a loop looks at where nothing is half done.

An exception out of a signal handler can come anywhere, in the middle of a save or of JAX, and what was
finished is lost with it. So a handler only notes the wish, and the loop ends at the next place that suits: after
the outer step, or after the segment of a method that is driven from Python. One compiled program is never
interrupted, and neither is a compilation.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import Any

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


def _terminate(number: int, frame: Any) -> None:
    raise SystemExit(TERMINATED)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
