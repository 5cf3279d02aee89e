"""Work behind the main thread's back, one job after another; none outlives the ``with`` block."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")


class _StoppedError(Exception):
    """Raised inside of a job that is no longer wanted."""


class Background:
    """Runs jobs in order in a thread. When the block ends badly, Ctrl-C included, jobs are given up first."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="sd-convert")
        self._stop = Event()
        self._jobs: list[Future[Any]] = []

    def submit(self, job: Callable[[], T]) -> Future[T]:
        """Run ``job`` after those before it."""
        future = self._executor.submit(job)
        self._jobs.append(future)
        return future

    def check(self) -> None:
        """For jobs to call often: raises if the job is to end."""
        if self._stop.is_set():
            raise _StoppedError

    def raise_failures(self) -> None:
        """Raise what a job that is done has raised, so that no more work is put into a lost cause."""
        for job in self._jobs:
            if job.done():
                job.result()

    def __enter__(self) -> Background:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all jobs, or after an exception for the end of the one at work."""
        if kind is not None:
            self._stop.set()
        self._executor.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self.raise_failures()
