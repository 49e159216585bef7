"""ONNX files for tests: a network as PyTorch exports it, and graphs written by hand."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn


def export(path: Path, model: nn.Module, sample: Tensor) -> Path:
    """Write a network that takes images, with any number of examples and the names `image` and `logits`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this exporter takes a moment, the new one seconds
        torch.onnx.export(
            model.eval(),
            (sample,),
            path,
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        )
    return path


def tensor_after(path: Path, operator: str) -> str:
    """The name of what the graph's last node of this operator gives."""
    return [node.output[0] for node in onnx.load(path).graph.node if node.op_type == operator][-1]


def linear(path: Path, *, batch: str | int = "batch", domain: str = "", external: str | None = None) -> Path:
    """y = xA and z = relu(y), for x (batch, 2) and A = [[1, 0, -1], [0, 1, -1]]; the graph gives z, then y.

    batch: the first side of x. domain: of the second operator. external: where A lies beside the graph.
    """
    weight = numpy_helper.from_array(np.array([[1, 0, -1], [0, 1, -1]], np.float32), "A")
    float32 = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "A"], ["y"]), helper.make_node("Relu", ["y"], ["z"], domain=domain)],
        "linear",
        [helper.make_tensor_value_info("x", float32, [batch, 2])],
        [helper.make_tensor_value_info(name, float32, [batch, 3]) for name in ("z", "y")],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    if external is not None:
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], external)
        place = path.parent / external
        if not place.exists():
            place.write_bytes(weight.raw_data)
        model.graph.initializer[0].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path


def text(path: Path) -> Path:
    """logits = (sum over tokens of embedding[id] * mask) for ids and masks (batch, length), of 3 classes."""
    table = numpy_helper.from_array(np.arange(15, dtype=np.float32).reshape(5, 3), "table")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    last = numpy_helper.from_array(np.array([2], np.int64), "last")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "last"], ["column"]),
        helper.make_node("Mul", ["embedded", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "axes"], ["logits"], keepdims=0),
    ]
    names = ("input_ids", "attention_mask")
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"]) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [table, axes, last],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path
