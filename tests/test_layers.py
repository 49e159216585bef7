"""Files import only from lower floors; siblings of a floor do not import each other, except inside a folder."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent / "distill"

FLOORS = {
    "batch": 0, "numerics": 0, "view": 0, "clock": 0, "bar": 0, "journal": 0, "messages": 0, "picture": 0,
    "losses": 1, "heads": 1, "taps": 1, "models": 1, "metrics": 1, "measure": 1, "data": 1, "initialize": 1,
    "similarity": 1,
    "pair": 2, "weighting": 2, "guide": 2,
    "plan": 3,
    "match": 4, "recipe": 4, "trainer": 4, "evaluate": 4, "checkpoint": 4,
    "prepare": 5, "folder": 5,
    "build": 6, "report": 6,
    "fit": 7, "describe": 7,
    "result": 8, "propose": 8,
    "run": 9,
    "cli": 10, "__main__": 11, "__init__": 11,
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
