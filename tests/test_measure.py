import gc
import json
import weakref

import pytest
import torch
import torchvision
from torch import nn

from distill.measure import (
    Latency,
    evaluating,
    file_size,
    latency,
    machine,
    multiply_adds,
    parameters,
    training_memory,
    versions,
    weight_bytes,
)


def images(side: int = 224) -> torch.Tensor:
    return torch.zeros(1, 3, side, side)


def test_parameters_by_hand_with_tied_ones_once():
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    model[2].weight = nn.Parameter(model[0].weight.T)
    assert parameters(model) == 15 + 5 + 10 + 15 + 3
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    tied[0].weight.requires_grad_(False)
    assert parameters(tied) == 16 + 4 + 4


def test_multiply_adds_by_hand():
    # 3x3 convolution, 2 to 4 channels, at 6x6 outputs: 4 * 2 * 9 * 36; then 4 * 36 inputs to 5.
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
    assert multiply_adds(model, torch.zeros(1, 2, 8, 8)) == 4 * 2 * 9 * 36 + 4 * 36 * 5
    assert multiply_adds(model, torch.zeros(3, 2, 8, 8)) == 3 * (4 * 2 * 9 * 36 + 4 * 36 * 5)


# Published counts, in 1e9, of torchvision's model cards.
@pytest.mark.parametrize(
    ("name", "published", "million_parameters"),
    [("resnet50", 4.09, 25.557032), ("mobilenet_v3_small", 0.0565, 2.542856), ("vit_b_32", 4.41, 88.224232)],
)
def test_published_counts_of_torchvision(name, published, million_parameters):
    with torch.device("meta"):
        model, example = getattr(torchvision.models, name)(), images()
    assert multiply_adds(model, example) == pytest.approx(published * 1e9, rel=0.02)
    assert parameters(model) == round(million_parameters * 1e6)


def test_multiply_adds_are_counted_on_real_tensors_too():
    assert multiply_adds(torchvision.models.mobilenet_v3_small(), images()) == pytest.approx(0.0565e9, rel=0.02)


def test_fused_attention_is_counted_and_left_switched_on():
    # For 2 x 10 tokens projections of 32 to 96 and 32 to 32, two layers of 32 x 64, scores and mixing of 10 x 10 x 32.
    model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    expected = 2 * 10 * (32 * 96 + 32 * 32 + 2 * 32 * 64) + 2 * 2 * 10 * 10 * 32
    assert multiply_adds(model, torch.zeros(2, 10, 32)) == expected
    assert torch.backends.mha.get_fastpath_enabled()


def test_recurrent_layers_are_counted():
    # Four gates of 32 units, each from 16 inputs and 32 states, at 2 x 10 positions in both directions.
    model = nn.LSTM(16, 32, batch_first=True, bidirectional=True)
    assert multiply_adds(model, torch.zeros(2, 10, 16)) == 2 * (2 * 10) * 4 * 32 * (16 + 32)
    assert torch.backends.mkldnn.enabled and torch.backends.cudnn.enabled


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(4, 3)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.left(first) + self.right(second)


def test_inputs_may_be_named():
    inputs = {"second": torch.zeros(5, 4), "first": torch.zeros(5, 2)}
    assert multiply_adds(Named(), inputs) == 5 * (6 + 12)
    assert latency(Named(), inputs, repeats=2).seconds > 0
    assert training_memory(Named(), inputs, optimizer_states=0).activations == 4 * 5 * 6


def test_measuring_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    multiply_adds(model, inputs)
    latency(model, inputs, repeats=2)
    assert [module.training for module in model] == [True, False, True]
    model[1].train()
    training_memory(model, inputs, optimizer_states=1)
    assert [module.training for module in model] == [True, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modes_come_back_after_an_error():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout())
    with pytest.raises(RuntimeError, match="shapes"):
        multiply_adds(model, torch.zeros(2, 3))
    assert model.training and model[1].training and torch.backends.mha.get_fastpath_enabled()
    with evaluating(model):
        assert not model[1].training
    assert model[1].training


class Clock(nn.Module):
    """A model whose passes take the given seconds, on a clock of its own."""

    def __init__(self, seconds: list[float]) -> None:
        super().__init__()
        self.seconds, self.now = iter(seconds), 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        assert not self.training
        self.now += next(self.seconds)
        return x


def test_latency_is_the_median_behind_the_warm_up(monkeypatch):
    model = Clock([64.0, 64.0, 6.0, 2.0, 5.0, 3.0, 4.0])
    monkeypatch.setattr("distill.measure.time.perf_counter", lambda: model.now)
    assert latency(model, torch.zeros(1), repeats=5, warmup=2) == Latency(seconds=4.0, spread=5.0 - 3.0)


@pytest.mark.parametrize(("repeats", "warmup"), [(1, 0), (0, 3), (5, -1)])
def test_latency_without_a_spread_is_refused(repeats, warmup):
    with pytest.raises(ValueError, match=f"got {repeats} and {warmup}"):
        latency(nn.Identity(), torch.zeros(1), repeats=repeats, warmup=warmup)


def test_file_size_of_a_file_and_of_a_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "one").write_bytes(b"x" * 10)
    (tmp_path / "inner" / "two").write_bytes(b"x" * 32)
    assert file_size(tmp_path / "one") == 10
    assert file_size(str(tmp_path)) == 42
    with pytest.raises(ValueError, match=r"no file or folder .*three"):
        file_size(tmp_path / "three")


def test_training_memory_by_hand():
    # 4 -> 16 -> ReLU -> 3 for 8 examples in float32. Kept for the backward: the input (8 x 4) for the first weight's
    # gradient, and the ReLU's result (8 x 16), which both the ReLU and the second weight need: one storage.
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    memory = training_memory(model, torch.randn(8, 4), optimizer_states=2)
    assert memory.parameters == memory.gradients == 4 * (4 * 16 + 16 + 16 * 3 + 3)
    assert memory.optimizer == 2 * memory.gradients
    assert memory.buffers == 0
    assert memory.activations == 4 * (8 * 4 + 8 * 16)
    assert memory.total == 4 * memory.parameters + memory.activations


def test_training_memory_of_frozen_parts_and_buffers():
    # The frozen layer needs no gradient, optimizer state or input; BatchNorm has two float32 and one int64 buffer.
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    model[0].requires_grad_(False)
    memory = training_memory(model, torch.randn(8, 4), optimizer_states=1)
    assert memory.gradients == memory.optimizer == 4 * 12
    assert memory.parameters == 4 * (30 + 12)
    assert memory.buffers == 4 * 12 + 8
    assert memory.activations == 4 * (8 * 6 + 6 + 6)  # its input, and the batch's mean and deviation


def test_the_graph_is_freed():
    kept = []
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
    model.register_forward_hook(lambda module, args, output: kept.append(weakref.ref(output.untyped_storage())))
    gc.disable()
    try:
        training_memory(model, torch.randn(2, 4), optimizer_states=0)
        assert kept[0]() is None
    finally:
        gc.enable()


def test_activations_are_scaled_to_the_batch_size():
    model = torchvision.models.resnet18(num_classes=4)
    few = training_memory(model, torch.randn(2, 3, 32, 32), optimizer_states=1, batch_size=12)
    many = training_memory(model, torch.randn(12, 3, 32, 32), optimizer_states=1)
    assert few.batch_size == many.batch_size == 12
    assert few.activations == pytest.approx(many.activations, rel=0.05)


def test_machine_and_versions_are_plain_and_complete():
    values = json.loads(json.dumps({"machine": machine(), "versions": versions()}))
    assert values["machine"]["cores"] >= 1 and values["machine"]["memory_bytes"] > 2**28 and values["machine"]["cpu"]
    assert values["machine"].keys() - {"gpu", "gpus"} == {"cpu", "cores", "threads", "memory_bytes"}
    assert values["versions"].keys() == {"python", "torch", "torchvision", "accelerate", "distill", "platform"}
    assert values["versions"]["torch"] == torch.__version__


def test_machine_and_versions_name_no_host_and_no_path(monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "secret-host")
    text = json.dumps([machine(), versions()])
    assert "secret-host" not in text
    assert not any(word.startswith("/") for word in text.replace('"', " ").split())


def test_a_model_that_pytorch_does_not_run_tells_its_size_itself():
    class Outside(nn.Module):
        num_parameters, num_bytes = 7, 100

        def forward(self, x):
            return x

    model = nn.Sequential(nn.Linear(3, 5), Outside())
    assert parameters(model) == 15 + 5 + 7
    assert weight_bytes(model) == 4 * 20 + 100
    assert multiply_adds(model, torch.zeros(1, 3)) is None


def test_weights_in_bytes_count_parameters_and_buffers():
    assert weight_bytes(nn.BatchNorm1d(5).half()) == 2 * 4 * 5 + 8
