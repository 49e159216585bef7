from collections.abc import Iterator
from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that are saved in a test."""
    saved: list[Figure] = []
    save = Figure.savefig

    def savefig(self: Figure, *args: Any, **kwargs: Any) -> None:
        save(self, *args, **kwargs)
        self.draw_without_rendering()  # so that places are those of the figure's own resolution again
        saved.append(self)

    monkeypatch.setattr(Figure, "savefig", savefig)
    yield saved
