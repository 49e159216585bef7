"""An ONNX file as a teacher: it answers as the network it came from, is tapped by name, and can't do harm."""

import builtins
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from distill.measure import multiply_adds, parameters, weight_bytes
from distill.models import load_model
from distill.models.from_onnx import OnnxModel
from distill.pair import Teacher
from distill.taps import TapError, Tapped
from tests.models.onnx_files import export, linear, tensor_after, text
from tests.tiny import net

X = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
Y = torch.tensor([[1.0, 2.0, -3.0], [3.0, -1.0, -2.0]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "teacher.onnx"


def loaded(path: Path, **arguments: Any) -> nn.Module:
    return load_model(f"onnx:{path}", num_classes=3, arguments=arguments).model


def test_it_answers_as_the_network_it_came_from_at_the_logits_and_inside(path: Path) -> None:
    network = net(num_classes=3).eval()
    for norm in (network.layer1[1], network.layer2[1]):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
    export(path, network, torch.randn(2, 1, 6, 6))
    inner = tensor_after(path, "Relu")
    images = torch.randn(5, 1, 6, 6)
    answers = Teacher(loaded(path, outputs=[inner]), ("logits", f"outputs:{inner}"))(images)
    expected = Tapped(network, ("logits", "layer2"))(images)
    torch.testing.assert_close(answers["logits"], expected["logits"])
    torch.testing.assert_close(answers[f"outputs:{inner}"], expected["layer2"])


def test_every_output_is_a_tap_and_the_first_is_the_logits_unless_another_is_named(path: Path) -> None:
    model = loaded(linear(path))
    answers = Teacher(model, ("logits", "logits:y", "outputs:y", "outputs:z"))(X)
    assert torch.equal(answers["logits"], Y.relu())
    assert torch.equal(answers["outputs:z"], Y.relu())
    assert torch.equal(answers["outputs:y"], Y)
    assert torch.equal(answers["logits:y"], Y)
    assert torch.equal(Teacher(loaded(path, logits="y"), ("logits",))(X)["logits"], Y)


def test_texts_are_given_by_the_names_of_the_graphs_inputs(path: Path) -> None:
    inputs = {
        "input_ids": torch.tensor([[1, 2], [4, 0]], dtype=torch.int32),  # another integer type is converted
        "attention_mask": torch.tensor([[1, 1], [1, 0]]),
        "token_type_ids": torch.zeros(2, 2, dtype=torch.int64),  # not an input of this graph
    }
    answers = Teacher(loaded(text(path)), ("logits",))(inputs)
    # Rows of the table: 1 is (3, 4, 5), 2 is (6, 7, 8), 4 is (12, 13, 14).
    assert torch.equal(answers["logits"], torch.tensor([[9.0, 11.0, 13.0], [12.0, 13.0, 14.0]]))


def test_it_tells_its_size_and_that_multiply_adds_are_not_counted(path: Path) -> None:
    teacher = Teacher(loaded(linear(path)), ("logits",))
    assert parameters(teacher) == 2 * 3
    assert weight_bytes(teacher) == path.stat().st_size
    assert multiply_adds(teacher, X) is None
    assert list(teacher.parameters()) == []
    assert parameters(loaded(text(path))) == 5 * 3, "shapes and axes are no weights"


def test_weights_beside_the_graph_are_read_wherever_the_process_runs(path: Path, monkeypatch: Any) -> None:
    linear(path, external="weights.bin")
    monkeypatch.chdir("/")
    model = loaded(path)
    assert torch.equal(Teacher(model, ("outputs:y",))(X)["outputs:y"], Y)
    assert parameters(model) == 6
    assert weight_bytes(model) == path.stat().st_size + 6 * 4


@pytest.mark.parametrize("way", ["dots", "absolute", "link"])
def test_weights_outside_the_folder_are_refused(path: Path, way: str) -> None:
    inside = path.parent / "inside"
    inside.mkdir()
    outside = path.parent / "secret.bin"
    outside.write_bytes(bytes(24))
    if way == "link":
        (inside / "weights.bin").symlink_to(outside)
    location = {"dots": "../secret.bin", "absolute": str(outside), "link": "weights.bin"}[way]
    linear(inside / "teacher.onnx", external="own.bin")
    model = onnx.load(inside / "teacher.onnx", load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    (inside / "teacher.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"teacher\.onnx reads its weights from .*, outside its folder\. Put"):
        loaded(inside / "teacher.onnx")


def test_missing_weights_are_named(path: Path) -> None:
    linear(path, external="weights.bin")
    (path.parent / "weights.bin").unlink()
    with pytest.raises(ValueError, match=r"has its weights in 'weights\.bin', which is not beside it"):
        loaded(path)


def test_weights_of_a_function_are_looked_at_too(path: Path) -> None:
    linear(path)
    model = onnx.load(path)
    tensor = onnx.TensorProto(name="t", data_type=onnx.TensorProto.FLOAT, dims=[6], raw_data=bytes(24))
    onnx.external_data_helper.set_external_data(tensor, "../secret.bin")
    tensor.ClearField("raw_data")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    opsets = [onnx.helper.make_opsetid("", 17)]
    model.functions.append(onnx.helper.make_function("own", "Give", [], ["c"], [constant], opsets))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="outside its folder"):
        loaded(path)


def test_operators_of_others_are_refused_by_name(path: Path) -> None:
    with pytest.raises(ValueError, match=r"uses the operator my\.library\.Relu, which ONNX Runtime has only with"):
        loaded(linear(path, domain="my.library"))


@pytest.mark.parametrize(("batch", "told"), [(1, "1 example at"), (4, "4 examples at")])
def test_a_fixed_number_of_examples_is_refused_with_the_way_out(path: Path, batch: int, told: str) -> None:
    with pytest.raises(ValueError, match=f"takes {told} a time, and batches differ. Export it with a dynamic batch"):
        loaded(linear(path, batch=batch))


def test_images_of_another_size_are_refused_before_they_are_run(path: Path) -> None:
    export(path, net(num_classes=3), torch.randn(2, 1, 6, 6))
    with pytest.raises(ValueError, match=r"takes image of shape \(any, 1, 6, 6\), got \(4, 3, 8, 8\)\. Give .* a view"):
        loaded(path)(torch.randn(4, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": ["yy"]}, r"has no tensor 'yy'\. Nearest: y"),
        ({"outputs": "y"}, r"arguments\.outputs .* holds names, got 'y'\. Write a tuple\."),
        ({"logits": "A"}, r"has no output 'A' for its logits\. Nearest: "),
        ({"output": ["y"]}, r"takes no argument 'output'\. Nearest: outputs"),
    ],
)
def test_wrong_names_are_told_with_the_nearest(path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loaded(linear(path), **arguments)


def test_a_tap_that_is_no_output_is_named_with_those_there_are(path: Path) -> None:
    with pytest.raises(TapError, match=r"Tap 'outputs:layer2' has no item 'layer2'.*'outputs:z', 'outputs:y'"):
        Teacher(loaded(linear(path)), ("outputs:layer2",))(X)


def test_inputs_must_be_those_of_the_graph(path: Path) -> None:
    model = loaded(text(path))
    with pytest.raises(ValueError, match="takes input_ids, attention_mask, got one tensor"):
        model(X)
    with pytest.raises(ValueError, match="takes input_ids, attention_mask, and attention_mask is not among input_ids"):
        model(input_ids=X)


def test_a_file_that_is_no_graph_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no ONNX file .*teacher\.onnx\. Check the path\."):
        loaded(path)
    for content in (b"", b"\xff\xff\xff\xff"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"teacher\.onnx is damaged, or no ONNX file"):
            loaded(path)
    linear(path)
    model = onnx.load(path)
    model.graph.node[0].input[1] = "nowhere"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"teacher\.onnx can't be run by ONNX Runtime: .* Export it again\."):
        loaded(path)


def test_weights_of_its_own_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match=r"^weights has no effect on onnx:.*, whose file holds them\. Leave it out\.$"):
        load_model(f"onnx:{linear(path)}", num_classes=3, weights="runs/other")


def test_without_onnx_runtime_the_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    linear(path)
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("onnxruntime"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"needs onnx and onnxruntime\. .* pip install 'distill\[export\]'"):
        loaded(path)


def test_the_file_may_go_once_it_is_loaded(path: Path) -> None:
    model = OnnxModel(linear(path))
    shutil.rmtree(path.parent)
    assert torch.equal(model(X)["y"], Y)
