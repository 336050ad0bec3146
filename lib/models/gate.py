"""Which calls of a model belong to a `prune` context where several threads call it: those that begin and end inside."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakSet

from torch import nn

from lib.models.caches import Stay
from lib.models.guards import Uncopied

_LOCK = threading.Lock()
_PRUNED: WeakSet[nn.Module] = WeakSet()  # cores of the models that are being pruned, by any thread


@contextmanager
def alone(core: nn.Module) -> Iterator[None]:
    """Claim a model; refused while another context holds it."""
    with _LOCK:
        if core in _PRUNED:
            raise ValueError(
                "model is being pruned already, by one context at a time whatever the thread; leave that context first"
            )
        _PRUNED.add(core)
    try:
        yield
    finally:
        with _LOCK:
            _PRUNED.discard(core)


class Gate(Uncopied):
    """Counts the calls under way in each thread.

    A call of another thread that began before the context opened meets its hooks half way, so they leave it alone; it ends
    as it began, whole. For one that is still running at the end the context waits, so that no hook goes from under it.
    """

    def __init__(self) -> None:
        self._owner = threading.get_ident()
        self._open = False
        self._calls: Counter[int] = Counter()
        self._change = threading.Condition()
        self.stay = Stay(self._stays)  # of the caches that are filled here

    @property
    def foreign(self) -> bool:
        """Whether this thread is another than that of the context."""
        return threading.get_ident() != self._owner

    @property
    def within(self) -> bool:
        """Whether what this thread runs is inside the context."""
        return not self.foreign or self._calls[threading.get_ident()] > 0

    def _stays(self) -> bool:
        """Whether a cache that was filled here is of use to what this thread runs."""
        return self._calls[threading.get_ident()] > 0 or (self._open and not self.foreign)

    @property
    def hint(self) -> str:
        """What to add to an error whose cause may be a call that began outside."""
        return " (a call from another thread has to begin inside the context)" if self.foreign else ""

    def enter(self, *_) -> None:
        """A call begins; one within another counts even while the context waits for that."""
        here = threading.get_ident()
        with self._change:
            if self._open or self._calls[here]:
                self._calls[here] += 1

    def leave(self, *_) -> None:
        """A call ends."""
        here = threading.get_ident()
        with self._change:
            if self._calls[here]:
                self._calls[here] -= 1
            self._change.notify_all()

    def hook(self, function: Callable) -> Hook:
        """`function` for calls inside the context; others pass by."""
        return Hook(self, function)

    def install(self, stack: ExitStack, *modules: nn.Module) -> None:
        """Open, after all hooks are in place: count the calls of `modules`. On exit, wait for those of other threads."""
        for module in modules:
            stack.callback(module.register_forward_pre_hook(self.enter, prepend=True).remove)
            stack.callback(module.register_forward_hook(self.leave, always_call=True).remove)
        stack.callback(self._close)
        with self._change:
            self._open = True

    def _close(self) -> None:
        with self._change:
            self._open = False
            while self._others():
                self._change.wait(1.0)

    def _others(self) -> bool:
        alive = {thread.ident for thread in threading.enumerate()} - {self._owner}
        return any(self._calls[thread] for thread in alive)


class Hook(Uncopied):
    """A hook that only acts on calls inside its context."""

    def __init__(self, gate: Gate, function: Callable) -> None:
        self._gate, self._function = gate, function

    def __call__(self, *args):
        return self._function(*args) if self._gate.within else None
