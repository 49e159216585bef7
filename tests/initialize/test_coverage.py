import io
import json

from rich.console import Console

from distill.initialize import Coverage, TensorCoverage

COVERAGE = Coverage(
    (
        TensorCoverage("conv.weight", "parameter", (4, 3), "selected", "conv.weight", (8, 3)),
        TensorCoverage("norm.mean", "buffer", (100,), "copied", "norm.mean", (100,)),
        TensorCoverage("norm.count", "buffer", (), "copied", "norm.count", ()),
        TensorCoverage("fc.weight", "parameter", (2, 2), "left", "fc.weight", (7, 2), "the teacher's is (7, 2)"),
        TensorCoverage("scale", "parameter", (), "left", None, None, "the teacher has no tensor of this name"),
    )
)


def test_share_counts_elements_of_parameters_only():
    # 12 of 12 + 4 + 1 elements; the buffer of 100 is listed and not counted.
    assert (COVERAGE.covered, COVERAGE.parameters, COVERAGE.share) == (12, 17, 12 / 17)


def test_left_lists_what_stays():
    assert [tensor.name for tensor in COVERAGE.left] == ["fc.weight", "scale"]


def test_json_comes_back_equal():
    values = json.loads(json.dumps(COVERAGE.to_json()))
    assert values["share"] == 12 / 17
    assert Coverage.from_json(values) == COVERAGE


def test_table_names_every_tensor_with_shapes_and_reasons():
    written = io.StringIO()
    Console(file=written, width=200).print(COVERAGE.table())
    text = written.getvalue()
    assert "70.6% of the student's 17 parameters from the teacher (2 tensors copied, 1 selected, 2 left)" in " ".join(
        text.split()
    )
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert rows == [
        ["conv.weight", "(4, 3)", "conv.weight", "(8, 3)", "selected"],
        ["norm.mean", "(100,)", "norm.mean", "(100,)", "copied"],
        ["norm.count", "()", "norm.count", "()", "copied"],
        ["fc.weight", "(2, 2)", "fc.weight", "(7, 2)", "left: the teacher's is (7, 2)"],
        ["scale", "()", "-", "-", "left: the teacher has no tensor of this name"],
    ]


def test_averaged_and_grown_tensors_count_where_their_values_are_the_teachers():
    # 4 averaged and 6 grown of 4 + 6 + 2; the last makes an added layer do nothing, with nothing of the teacher's.
    coverage = Coverage(
        (
            TensorCoverage("a.weight", "parameter", (4,), "averaged", "a.weight", (4,), "with b.weight"),
            TensorCoverage("c.weight", "parameter", (6,), "grown", "c.weight", (3,)),
            TensorCoverage("d.weight", "parameter", (2,), "grown", None, None, "so that it passes its input on"),
        )
    )
    assert (coverage.covered, coverage.parameters) == (10, 12)
    assert "(0 tensors copied, 0 selected, 1 averaged, 2 grown, 0 left)" in str(coverage)
    assert Coverage.from_json(json.loads(json.dumps(coverage.to_json()))) == coverage
    written = io.StringIO()
    Console(file=written, width=200).print(coverage.table())
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in written.getvalue().splitlines() if "│" in line]
    assert [row[-1] for row in rows] == ["averaged: with b.weight", "grown", "grown: so that it passes its input on"]
