"""Weight files: written whole, read without running code, fitted by name."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distill.models import cifar, save_student
from distill.models.weights import fit_tensors, read_config, read_tensors, student_folder

CONFIG = {
    "source": "distill.models.cifar:resnet8",
    "arguments": {"width": 4},
    "num_classes": 3,
    "in_channels": 1,
    "classes": ["a", "b", "c"],
    "view": {"size": None, "mean": [0.5], "std": [0.25]},
}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.decoder = nn.Linear(3, 5, bias=False)
        self.decoder.weight = self.embedding.weight


class Module(nn.Module):
    """A network whose own names all start with `module.`."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)


def states_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def fit(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    fit_tensors(model, tensors, source="SOURCE", weights="WEIGHTS")


def test_a_saved_student_loads_into_its_bare_class_to_the_bit(tmp_path: Path) -> None:
    model, other = cifar.resnet8(3, 1, 4), cifar.resnet8(3, 1, 4)
    model(torch.randn(4, 1, 8, 8))
    save_student(tmp_path / "student", model, CONFIG)
    state = load_file(tmp_path / "student" / "model.safetensors")
    other.load_state_dict(state, strict=True)
    assert states_equal(other.state_dict(), model.state_dict())
    assert json.loads((tmp_path / "student" / "config.json").read_text()) == CONFIG
    assert sorted(path.name for path in (tmp_path / "student").iterdir()) == ["config.json", "model.safetensors"]


def test_a_compiled_student_is_saved_under_plain_names(tmp_path: Path) -> None:
    compiled = nn.Module()  # torch.compile's wrapper holds the module under this name; its import takes seconds
    compiled.add_module("_orig_mod", nn.Linear(2, 2))
    save_student(tmp_path, nn.Sequential(compiled), CONFIG)
    assert set(load_file(tmp_path / "model.safetensors")) == {"0.weight", "0.bias"}


def test_a_student_in_a_data_parallel_wrapper_is_saved_under_plain_names(tmp_path: Path) -> None:
    save_student(tmp_path, nn.DataParallel(nn.Linear(2, 2)), CONFIG)
    assert set(load_file(tmp_path / "model.safetensors")) == {"weight", "bias"}


def test_tied_tensors_are_saved_and_load_strictly(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    save_student(tmp_path, model, CONFIG)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(other.decoder.weight, model.embedding.weight)


def test_a_save_that_is_cut_off_leaves_the_last_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = nn.Linear(2, 2)
    save_student(tmp_path, first, CONFIG)

    def cut_off(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("distill.models.weights.save_file", cut_off)
    with pytest.raises(KeyboardInterrupt):
        save_student(tmp_path, nn.Linear(2, 2), {**CONFIG, "classes": ["x"]})
    assert states_equal(load_file(tmp_path / "model.safetensors"), first.state_dict())
    assert read_config(tmp_path) == CONFIG


def test_a_run_and_its_student_name_the_same_folder(tmp_path: Path) -> None:
    assert student_folder(tmp_path) is None
    save_student(tmp_path / "student", nn.Linear(2, 2), CONFIG)
    assert student_folder(tmp_path) == student_folder(tmp_path / "student") == tmp_path / "student"


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_checkpoint_loads_whatever_is_around_and_before_its_names(
    tmp_path: Path, wrapper: str | None, prefix: str, suffix: str
) -> None:
    model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    state: dict[str, object] = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    torch.save(state if wrapper is None else {"epoch": 3, wrapper: state}, path)
    fit(other, read_tensors(path))
    assert states_equal(other.state_dict(), model.state_dict())


def test_a_network_named_like_a_wrapper_keeps_its_names(tmp_path: Path) -> None:
    model, other = Module(), Module()
    save_student(tmp_path, model, CONFIG)
    fit(other, read_tensors(tmp_path / "model.safetensors"))
    assert states_equal(other.state_dict(), model.state_dict())


def test_half_precision_weights_are_widened_into_a_float32_model() -> None:
    model = nn.Linear(2, 2)
    fit(model, {"weight": torch.ones(2, 2, dtype=torch.float16), "bias": torch.zeros(2, dtype=torch.float16)})
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, torch.ones(2, 2))


def test_files_from_before_batch_counts_load() -> None:
    model = nn.BatchNorm2d(2)
    fit(model, {name: torch.full((2,), 3.0) for name in ("weight", "bias", "running_mean", "running_var")})
    assert torch.equal(model.running_var, torch.full((2,), 3.0))


def test_a_tied_tensor_may_be_given_under_one_name() -> None:
    model, given = Tied(), torch.randn(5, 3)
    fit(model, {"embedding.weight": given})
    assert torch.equal(model.decoder.weight, given)


def test_a_mismatch_names_missing_unexpected_and_both_shapes_on_one_line() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(2, 2, bias=False)})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        fit(model, {"a.weight": torch.zeros(3, 4), "a.bias": torch.zeros(3), "c.weight": torch.zeros(1)})
    assert str(caught.value) == (
        "WEIGHTS does not fit SOURCE: missing b.weight; unexpected c.weight; "
        "of another shape a.weight ((3, 4) in the file, (3, 2) in the model). "
        "Build the model that the weights were made for."
    )
    assert states_equal(model.state_dict(), before)


def test_a_long_mismatch_is_cut_with_a_count() -> None:
    with pytest.raises(ValueError, match=r"missing 0.weight, 0.bias, 1.weight and 3 more; unexpected a\. Build"):
        fit(nn.Sequential(*(nn.Linear(1, 1) for _ in range(3))), {"a": torch.zeros(1)})


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(100)])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_damaged_file_is_named_on_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        read_tensors(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_cut_short_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    state = nn.Linear(50, 50).state_dict()
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(ValueError, match=f"{name} .*damaged"):
        read_tensors(path)


@pytest.mark.parametrize("write", [torch.save, lambda model, path: path.write_bytes(pickle.dumps(model))])
def test_pickled_objects_are_not_run_and_the_way_out_is_named(tmp_path: Path, write: object) -> None:
    path = tmp_path / "model.pt"
    write(nn.Linear(2, 2), path)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"model.pt can't be read as weights alone.*model.state_dict\(\)"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("held", "named"), [({"epoch": 3}, "it holds epoch"), ({}, "it holds nothing"), (torch.ones(2), "it holds Tensor")]
)
def test_a_file_without_tensors_by_name_says_what_it_holds(tmp_path: Path, held: object, named: str) -> None:
    torch.save(held, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=named):
        read_tensors(tmp_path / "w.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no weight file .*w\.pt"):
        read_tensors(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, "can't be read"), ("{", "can't be read"), ("[]", "lacks source"), ("{}", "lacks source")],
)
def test_a_damaged_config_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"config.json .*{reason}"):
        read_config(tmp_path)
