"""Files import only from lower floors; siblings of a floor do not import each other, except inside a folder."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "distill"

FLOORS = {
    "batch": 0, "numerics": 0, "view": 0, "clock": 0, "bar": 0, "journal": 0, "messages": 0, "picture": 0,
    "stopping": 0, "parser": 0,
    "attention": 0, "archive": 0,
    "tokenize": 1,
    "losses": 2, "heads": 2, "taps": 2, "models": 2, "metrics": 2, "measure": 2, "data": 2, "initialize": 2,
    "similarity": 2, "transferability": 2,
    "pair": 3, "zero": 3, "onnx_file": 3, "weighting": 3, "guide": 3, "matching": 3, "fold": 3,
    "plan": 4, "sharding": 4, "teacher_cache": 4,
    "match": 5, "recipe": 5, "trainer": 5, "evaluate": 5, "checkpoint": 5, "terms": 5, "start": 5,
    "looks": 5,
    "prepare": 6, "arms": 6, "folder": 6, "optimize": 6, "answers": 6, "speed": 6,
    "build": 7, "report": 7, "matched": 7, "progress": 7, "profiling": 7,
    "trial": 8, "running": 8, "fit": 8, "describe": 8, "micro_batch": 8, "by_label": 8,
    "labelled": 9, "propose": 9, "tune": 9, "finished": 8, "serving": 9,
    "result": 10, "cost": 10, "export": 10, "predict": 10, "rank": 10, "compare": 10,
    "page": 11,
    "run": 12,
    "ablate": 13,
    "cli": 14, "__main__": 15, "__init__": 15,
}  # fmt: skip


def room(path: Path) -> str:
    """The file or folder right below distill/ that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "distill":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("distill.")}
    return names


def test_files_import_only_from_lower_floors() -> None:
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 20
    breaches = [
        f"{path.relative_to(ROOT)} (floor {FLOORS[room(path)]}) imports {name} (floor {FLOORS[name]})"
        for path in files
        for name in sorted(imported_rooms(path))
        if name != room(path) and FLOORS[name] >= FLOORS[room(path)]
    ]
    assert breaches == []


def test_every_file_and_folder_has_a_floor() -> None:
    assert {room(path) for path in ROOT.rglob("*.py")} == set(FLOORS)
