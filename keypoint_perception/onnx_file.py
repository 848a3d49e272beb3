"""Just enough of the ONNX file format to look before an engine does: metadata, inputs, outputs, outside references.

An engine that opens a hostile file has already followed its references. This reads the protobuf wire format of
onnx.proto3 directly, so that the robot needs no onnx package and TensorRT, which drops metadata, none either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from keypoint_perception.errors import UserError

UINT8, FLOAT = 2, 1
_TYPE_NAMES = {FLOAT: "float32", UINT8: "uint8"}
Shape = tuple[int | None, ...]
_Value = memoryview | int
"""Of a field: bytes, which may be a message, or a number."""


@dataclass(frozen=True)
class Structure:
    """What the outside of an ONNX file looks like. A dimension of None is free."""

    metadata: dict[str, str]
    inputs: dict[str, tuple[int, Shape]]
    """Name to (element type, shape)."""
    outputs: dict[str, tuple[int, Shape]]

    def check_interface(self, input_size: tuple[int, int], keypoints: int, *, dynamic_adjacency: bool) -> None:
        """Raises UserError unless inputs and outputs are those of docs/architecture.md."""
        width, height = input_size
        expected = {
            "image": (UINT8, (height, width, 3)),
            "keypoints": (FLOAT, (keypoints, 2)),
            "scores": (FLOAT, (keypoints,)),
        }
        if dynamic_adjacency:
            expected["adjacency"] = (FLOAT, (keypoints, keypoints))
        found = {**self.inputs, **self.outputs}
        if set(self.inputs) != {"image"} or set(found) != set(expected):
            raise UserError(
                f"it maps {sorted(self.inputs)} to {sorted(self.outputs)}, "
                f"not ['image'] to {sorted(set(expected) - {'image'})}"
            )
        for name, (kind, shape) in expected.items():
            got_kind, got_shape = found[name]
            if got_kind != kind or got_shape[1:] != shape:
                got = _TYPE_NAMES.get(got_kind, f"type {got_kind}")
                raise UserError(
                    f"its `{name}` is {got} {got_shape}, not {_TYPE_NAMES[kind]} (N, {', '.join(map(str, shape))})"
                )


def read_structure(data: bytes) -> Structure:
    """Parses an ONNX file. Raises UserError where it is truncated, no ONNX, or refers to files outside itself."""
    try:
        model = list(_fields(memoryview(data)))
        graphs = [value for number, value in model if number == 7]
        if len(graphs) != 1 or not any(number == 8 for number, _ in model):
            raise ValueError("no single graph with an operator set")
        metadata = dict(_text_pair(value) for number, value in model if number == 14)
        graph = list(_fields(graphs[0]))
        inputs = dict(_value_info(value) for number, value in graph if number == 11)
        outputs = dict(_value_info(value) for number, value in graph if number == 12)
        outside = any(_graph_is_external(value) for value in graphs)
        outside |= any(_function_is_external(value) for number, value in model if number == 25)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"it is not a whole ONNX file ({error}): copy or export it again") from None
    if outside:
        raise UserError("it keeps tensors in other files, which are never read: export it with everything inside")
    return Structure(metadata, inputs, outputs)


def append_metadata(onnx: bytes, key: str, value: str) -> bytes:
    """The file with one more metadata entry; a protobuf message may be extended by appending a field."""
    pair = _length_delimited(1, key.encode()) + _length_delimited(2, value.encode())
    return onnx + _length_delimited(14, pair)


def _fields(data: _Value) -> Iterator[tuple[int, _Value]]:
    """The (field number, value) pairs of one message."""
    if isinstance(data, int):
        raise ValueError("a number where a message should be")
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == 2:
            length, position = _varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {position}")
        if number == 0 or position + length > len(data):
            raise ValueError(f"a field reaches past the end at byte {position}")
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number without end at byte {position}")


def _text(value: _Value) -> str:
    if isinstance(value, int):  # of which `bytes` would make so many zeros
        raise ValueError("a number where a text should be")
    return bytes(value).decode()


def _number(value: _Value) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number should be")
    return value


def _text_pair(data: _Value) -> tuple[str, str]:
    pair = dict(_fields(data))
    return _text(pair.get(1, memoryview(b""))), _text(pair.get(2, memoryview(b"")))


def _value_info(data: _Value) -> tuple[str, tuple[int, Shape]]:
    value = dict(_fields(data))
    tensor = dict(_fields(dict(_fields(value[2]))[1])) if 2 in value else {}
    dimensions = [dict(_fields(d)) for number, d in _fields(tensor[2]) if number == 1] if 2 in tensor else []
    shape = tuple(_number(d[1]) if 1 in d else None for d in dimensions)
    return _text(value.get(1, memoryview(b""))), (_number(tensor.get(1, 0)), shape)


def _tensor_is_external(data: _Value) -> bool:
    return any(number == 13 or (number == 14 and value != 0) for number, value in _fields(data))


def _graph_is_external(data: _Value) -> bool:
    for number, value in _fields(data):
        if number == 5 and _tensor_is_external(value):
            return True
        if number == 15 and _sparse_tensor_is_external(value):
            return True
    return _nodes_are_external(data, node_field=1)


def _function_is_external(data: _Value) -> bool:
    return _nodes_are_external(data, node_field=7) or any(
        n == 11 and _attribute_is_external(a) for n, a in _fields(data)
    )


def _sparse_tensor_is_external(data: _Value) -> bool:
    return any(number in (1, 2) and _tensor_is_external(value) for number, value in _fields(data))


def _nodes_are_external(data: _Value, node_field: int) -> bool:
    nodes = (node for number, node in _fields(data) if number == node_field)
    return any(f == 5 and _attribute_is_external(attribute) for node in nodes for f, attribute in _fields(node))


def _attribute_is_external(data: _Value) -> bool:
    """Of an attribute's value, or values: tensors, graphs, sparse tensors."""
    checks = {5: _tensor_is_external, 6: _graph_is_external, 22: _sparse_tensor_is_external}
    checks |= {10: _tensor_is_external, 11: _graph_is_external, 23: _sparse_tensor_is_external}
    return any(number in checks and checks[number](value) for number, value in _fields(data))


def _length_delimited(number: int, payload: bytes) -> bytes:
    return _encode_varint(number << 3 | 2) + _encode_varint(len(payload)) + payload


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
