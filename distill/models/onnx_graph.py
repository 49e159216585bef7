"""The graph in an ONNX file: read, checked against what it must not do, and given more outputs."""

from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from distill.messages import first_line, nearest

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Of the operators that ONNX Runtime brings along; those of other domains would need a library of their own."""


def read_graph(path: Path) -> Any:
    """The graph of a file as an `onnx.ModelProto`, without the weights that lie beside it.

    Raises:
        ValueError: onnx or onnxruntime is not installed; the file is missing or damaged, or has operators of others.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"onnx:{path} needs onnx and onnxruntime. Install them with: pip install 'distill[export]'."
        ) from error
    if not path.is_file():
        raise ValueError(f"There is no ONNX file {path}. Check the path.")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # damaged bytes fail in protobuf's parser, whose errors have no name that stays
        raise ValueError(f"{path} is damaged, or no ONNX file ({first_line(error)}). Export it again.") from error
    if not model.graph.output:
        raise ValueError(f"{path} is damaged, or no ONNX file (it holds no graph with outputs). Export it again.")
    _check_operators(path, model)
    return model


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor that a graph holds, its branches' and loops' too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: Any) -> Iterator[Any]:
    yield from (attribute.t, *attribute.tensors)
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield from (sparse.values, sparse.indices)
    for graph in (attribute.g, *attribute.graphs):
        yield from _tensors(graph)


def _nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def count_weights(model: Any) -> int:
    """Values in a graph's weights: tensors of floating point, or of bytes as quantised ones are; shapes are int64."""
    import onnx

    kinds = onnx.TensorProto
    weights = (kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16, kinds.DOUBLE, kinds.INT8, kinds.UINT8)
    tensors = _tensors(model.graph)
    return sum(prod(tensor.dims) for tensor in tensors if tensor.dims and tensor.data_type in weights)


def external_files(path: Path, model: Any) -> list[Path]:
    """The files beside the graph that hold its weights.

    Raises:
        ValueError: one lies outside the graph's folder, by `..`, by an absolute name or by a link, or is missing.
    """
    import onnx

    inner = (attribute for function in model.functions for node in function.node for attribute in node.attribute)
    held = [*_tensors(model.graph), *(tensor for attribute in inner for tensor in _attribute_tensors(attribute))]
    folder = path.parent.resolve()
    files: dict[Path, None] = {}
    for tensor in held:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        file = folder / location
        if not file.resolve().is_relative_to(folder):
            raise ValueError(
                f"{path} reads its weights from {location!r}, outside its folder. Put the file itself beside it, and "
                "export it again with a plain file name."
            )
        if not file.is_file():
            raise ValueError(f"{path} has its weights in {location!r}, which is not beside it. Copy that file too.")
        files[file.resolve()] = None
    return list(files)


def _check_operators(path: Path, model: Any) -> None:
    own = {function.domain for function in model.functions}
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for node in _nodes(nodes):
        if node.domain not in _DOMAINS and node.domain not in own:
            raise ValueError(
                f"{path} uses the operator {node.domain}.{node.op_type}, which ONNX Runtime has only with a library of "
                "others' code. Export it with standard operators."
            )


def add_outputs(path: Path, model: Any, outputs: Sequence[str]) -> None:
    """Make inner tensors of the graph outputs too.

    Raises:
        ValueError: there is no tensor of a name; names the nearest.
    """
    import onnx

    given = [value.name for value in model.graph.output]
    inner = [name for node in model.graph.node for name in node.output if name and name not in given]
    for name in dict.fromkeys(outputs):
        if name in given:
            continue
        if name not in inner:
            raise ValueError(f"{path} has no tensor '{name}'. Nearest: {nearest(name, [*given, *inner])}.")
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
