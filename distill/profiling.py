"""What `--profile` leaves of a few updates: a trace to look at, and a table of the operations that took longest."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from distill.clock import Stopwatch
from distill.folder import write_whole

# Updates that go by before any is recorded, in which memory is taken and kernels are chosen; updates that are recorded.
_SKIPPED, _RECORDED = 9, 5
# Operations in a trace: about 100 MB, and as many as a browser still shows.
_OPERATIONS = 200_000
_ROWS = 40


@contextmanager
def recording(folder: Path, watch: Stopwatch, device: torch.device, updates: int) -> Iterator[Callable[[bool], None]]:
    """Inside, a few updates are recorded, and `folder` gets what was seen; gives what is to be called behind each.

    It is told whether the epoch ends there: those that are kept lie within one. One update before them is thrown away:
    it warms the profiler up, and tells how many a trace can hold. Where a single one has more operations than that,
    there is a table of it alone. The trace has the stopwatch's parts as spans, so none may be open behind an update.

    updates: that are left to the run; of a short one the last are recorded.
    """
    recorder = _Recorder(folder, watch, device, skipped=max(1, min(_SKIPPED, updates - 3)))
    try:
        yield recorder.after_update
    finally:
        recorder.drop()


def found_in(folder: Path) -> str:
    """One line that says what lies in the folder of a profile."""
    if not (folder / "table.txt").exists():
        return "Nothing was profiled: too few updates were left, or an epoch has only one."
    if not (folder / "trace.json").exists():
        return f"Profile: {folder / 'table.txt'}; an update has too many operations for a trace."
    return f"Profile: {folder / 'table.txt'}, and {folder / 'trace.json'} for ui.perfetto.dev or chrome://tracing."


class _Recorder:
    """Starts and stops the profiler between updates."""

    def __init__(self, folder: Path, watch: Stopwatch, device: torch.device, *, skipped: int) -> None:
        self._folder, self._watch, self._skipped = folder, watch, skipped
        self._on_gpu = device.type == "cuda"
        self._done = 0
        self._held: int | None = None  # updates that a trace can hold, once it is known
        self._first = 0  # update that is kept
        self._profile: profile | None = None
        self._ended = False

    def after_update(self, ends_epoch: bool) -> None:
        self._done += 1
        if self._profile is not None and self._held is None:
            self._try(self._stopped())
        elif self._profile is not None and (ends_epoch or self._done - self._first + 1 == self._held):
            self._write(self._stopped(), traced=True)
        if self._profile is None and not (self._ended or ends_epoch) and self._done >= self._skipped:
            self._start()

    def drop(self) -> None:
        """Leave out what was not written, where the run ends amid an update."""
        if self._profile is not None:
            self._stopped()

    def _start(self) -> None:
        self._first = self._done + 1
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would write about its own start, and that there is no GPU
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._on_gpu else [])]
        self._profile = profile(activities=activities)
        self._profile.start()
        self._watch.named = True

    def _stopped(self) -> profile:
        assert self._profile is not None
        taken, self._profile, self._watch.named = self._profile, None, False
        taken.stop()
        return taken

    def _try(self, taken: profile) -> None:
        """See from one update how many a trace can hold."""
        operations = len(taken.events() or ())  # type: ignore[no-untyped-call]
        if operations > _OPERATIONS:
            self._write(taken, traced=False)
        else:
            self._held = min(_RECORDED, _OPERATIONS // max(operations, 1))

    def _write(self, taken: profile, *, traced: bool) -> None:
        self._ended, first = True, self._first
        self._folder.mkdir(exist_ok=True)
        order = "self_device_time_total" if self._on_gpu else "self_cpu_time_total"
        table = taken.key_averages().table(sort_by=order, row_limit=_ROWS, max_name_column_width=60)
        updates = f"update {first}" if first == self._done else f"updates {first} to {self._done}"
        title = f"The operations of {updates} since the run began or went on, those that took longest first."
        write_whole(self._folder / "table.txt", f"{title}\n{table}\n")
        trace, draft = self._folder / "trace.json", self._folder / ".trace.json.draft"
        if traced:
            taken.export_chrome_trace(str(draft))
            draft.replace(trace)
        else:
            trace.unlink(missing_ok=True)
