"""LiteRT model files that ask for too much: a good one goes in, a bad one comes out."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

if TYPE_CHECKING:
    from collections.abc import Callable

FLOAT, INTEGER, STRING = (
    schema.TensorType.FLOAT32,
    schema.TensorType.INT32,
    schema.TensorType.STRING,
)
#: More than a computer has: the sides of a square of ten gigabytes.
SIDE = 50_000


class Graph:
    """A model file taken apart."""

    def __init__(self, content: bytes) -> None:
        self.model = schema.ModelT.InitFromPackedBuf(content, 0)
        self.main = self.model.subgraphs[0]
        self.entry = int(self.main.inputs[0])
        self.exit = int(self.main.outputs[0])

    def content(self) -> bytes:
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def tensor(self, shape: list[int], kind: int = FLOAT, data: bytes | None = None) -> int:
        """Add a tensor; its number."""
        buffer = schema.BufferT()
        buffer.data = None if data is None else np.frombuffer(data, np.uint8)
        self.model.buffers.append(buffer)
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.name = np.array(shape, np.int32), kind, b"evil"
        tensor.buffer = len(self.model.buffers) - 1
        self.main.tensors.append(tensor)
        return len(self.main.tensors) - 1

    def zeros(self, shape: list[int]) -> int:
        return self.tensor(shape, data=bytes(4 * int(np.prod(shape))))

    def integers(self, *numbers: int) -> int:
        return self.tensor([len(numbers)], INTEGER, np.array(numbers, np.int32).tobytes())

    def add(
        self, name: str, inputs: list[int], output: int, *, at: int | None = 0, **options: Any
    ) -> None:
        """Add an operator, at the beginning if nothing else is said."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        code.customCode = options.pop("custom", None)
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([output], np.int32)
        kind = options.pop("options", None)
        if kind is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(schema, f"{kind}T")()
            for key, value in options.items():
                setattr(operator.builtinOptions, key, value)
        place = len(self.main.operators) if at is None else at
        self.main.operators.insert(place, operator)

    def reroute(self, old: int, new: int) -> None:
        """Have all that takes one tensor take another."""
        for operator in self.main.operators:
            operator.inputs = np.array([new if i == old else i for i in operator.inputs], np.int32)


GRAPHS: dict[str, Callable[[bytes], bytes]] = {}


def evil(name: str) -> Callable[[Callable[[Graph], None]], Callable[[Graph], None]]:
    """Register a change to a graph."""

    def register(change: Callable[[Graph], None]) -> Callable[[Graph], None]:
        def made(content: bytes) -> bytes:
            graph = Graph(content)
            change(graph)
            return graph.content()

        GRAPHS[name] = made
        return change

    return register


@evil("a declared tensor of 640 GB")
def _declared(graph: Graph) -> None:
    middle = int(graph.main.operators[0].outputs[0])
    graph.main.tensors[middle].shape = np.array([1, 100_000, 100_000, 16], np.int32)


@evil("a tensor of 40 GB that nobody uses")
def _unused(graph: Graph) -> None:
    graph.tensor([100_000, 100_000])


@evil("a variable of 40 GB")
def _variable(graph: Graph) -> None:
    graph.main.tensors[graph.tensor([100_000, 100_000])].isVariable = True


@evil("a constant of 40 GB in four bytes")
def _constant(graph: Graph) -> None:
    graph.tensor([100_000, 100_000], data=b"evil")


@evil("800 tensors that share a megabyte")
def _shared(graph: Graph) -> None:
    first = graph.main.tensors[graph.zeros([1 << 18])]
    graph.main.tensors += [first] * 799


@evil("a tensor of 200,000 axes")
def _rank(graph: Graph) -> None:
    graph.tensor([2**31 - 1] * 200_000)


@evil("a tensor of 200,000 axes, once more")
def _signature(graph: Graph) -> None:
    number = graph.tensor([1])
    graph.main.tensors[number].shapeSignature = np.ones(200_000, np.int32)


@evil("metadata of 4 MB under 300 names")
def _metadata(graph: Graph) -> None:
    number = graph.main.tensors[graph.zeros([1 << 20])].buffer
    for i in range(300):
        note = schema.MetadataT()
        note.name, note.buffer = f"evil {i}".encode(), number
        graph.model.metadata.append(note)


@evil("a constant of 8 MB that 100 operators take")
def _copied(graph: Graph) -> None:
    constant, image = graph.zeros([1440, 1440]), graph.tensor([1, 32, 90, 1])
    graph.reroute(graph.entry, image)
    rows = [graph.tensor([2, 1440]) for _ in range(101)]
    how = {"options": "ReshapeOptions"}
    graph.add("RESHAPE", [rows[-1], graph.integers(1, 32, 90, 1)], image, **how)
    for one, other in reversed(list(pairwise(rows))):
        graph.add("FULLY_CONNECTED", [one, constant], other, options="FullyConnectedOptions")
    graph.add("RESHAPE", [graph.entry, graph.integers(2, 1440)], rows[0], **how)


@evil("windows of 15x15 over a wide image")
def _windows(graph: Graph) -> None:
    wide = 2000
    narrow, broad = graph.tensor([1, 2880, 1, 1]), graph.tensor([1, 2880, wide, 1])
    seen, least = graph.tensor([1, 2880, wide, 1]), graph.tensor([1, 2880, 1, 1])
    image, kernel, bias = (
        graph.tensor([1, 32, 90, 1]),
        graph.zeros([1, 15, 15, 1]),
        graph.zeros([1]),
    )
    graph.reroute(graph.entry, image)
    how, step = {"options": "ReshapeOptions"}, {"strideW": 1, "strideH": 1}
    row = {"filterWidth": wide, "filterHeight": 1, "padding": 1, "options": "Pool2DOptions"}
    graph.add("RESHAPE", [least, graph.integers(1, 32, 90, 1)], image, **how)
    graph.add("MAX_POOL_2D", [seen], least, **row, **step)
    graph.add("CONV_2D", [broad, kernel, bias], seen, options="Conv2DOptions", **step)
    graph.add("ADD", [narrow, graph.zeros([1, 1, wide, 1])], broad, options="AddOptions")
    graph.add("RESHAPE", [graph.entry, graph.integers(1, 2880, 1, 1)], narrow, **how)


@evil("seconds of products")
def _products(graph: Graph) -> None:
    column, square = graph.tensor([2880, 1]), graph.tensor([2880, 1400])
    how = {"options": "FullyConnectedOptions"}
    made = graph.tensor([2880, 1400])
    graph.add("FULLY_CONNECTED", [square, graph.zeros([1400, 1400])], made, **how)
    graph.add("FULLY_CONNECTED", [column, graph.zeros([1400, 1])], square, **how)
    shape = graph.integers(2880, 1)
    graph.add("RESHAPE", [graph.entry, shape], column, options="ReshapeOptions")


@evil("an order of a million axes")
def _order(graph: Graph) -> None:
    order, made = graph.integers(*range(1_000_000)), graph.tensor([1, 32, 90, 1])
    graph.add("TRANSPOSE", [graph.entry, order], made, options="TransposeOptions")


def _buffers(_: bytes) -> bytes:
    """A model of nothing but 700,000 buffers, all the same empty one."""
    many = 700_000
    head = struct.pack("<I4s7H2x", 24, b"TFL3", 14, 12, 0, 0, 4, 0, 8)
    graphs, last = 36, 48 + 4 * many
    model = struct.pack("<3i", 16, graphs - 28, 44 - 32)
    lists = struct.pack("<3I", 1, last - graphs - 4, many)
    places = np.arange(last - 48, 0, -4, dtype=np.uint32).tobytes()
    return head + model + lists + places + struct.pack("<i2H", -4, 4, 4)


GRAPHS["700,000 buffers"] = _buffers


@evil("filled to 10 GB")
def _filled(graph: Graph) -> None:
    size, value = graph.integers(SIDE, SIDE), graph.zeros([])
    graph.add("FILL", [size, value], graph.tensor([SIDE, SIDE]), options="FillOptions")


@evil("a column and a row added to 10 GB, undeclared")
def _added(graph: Graph) -> None:
    column, row = graph.zeros([SIDE, 1]), graph.zeros([1, SIDE])
    graph.add("ADD", [column, row], graph.tensor([2]), options="AddOptions")


@evil("the image multiplied to a gigabyte and averaged")
def _multiplied(graph: Graph) -> None:
    many, big = graph.zeros([100_000, 1, 1, 1]), graph.tensor([1, 32, 90, 1])
    image, axis = graph.tensor([1, 32, 90, 1]), graph.integers(0)
    graph.reroute(graph.entry, image)
    graph.add("MEAN", [big, axis], image, options="ReducerOptions", keepDims=True)
    graph.add("ADD", [graph.entry, many], big, options="AddOptions")


@evil("a product of 10 GB")
def _product(graph: Graph) -> None:
    column, row = graph.zeros([SIDE, 1]), graph.zeros([1, SIDE])
    graph.add("BATCH_MATMUL", [column, row], graph.tensor([2]), options="BatchMatMulOptions")


@evil("a batch of 30,000")
def _batch(graph: Graph) -> None:
    graph.main.tensors[graph.entry].shape = np.array([30_000, 32, 90, 1], np.int32)


@evil("a loop without end")
def _loop(graph: Graph) -> None:
    for name in (b"condition", b"body"):
        part = schema.SubGraphT()
        flag = schema.TensorT()
        flag.shape, flag.type, flag.name = np.array([1], np.int32), schema.TensorType.BOOL, b"go"
        part.name, part.tensors, part.operators = name, [flag], []
        part.inputs = part.outputs = np.array([0], np.int32)
        graph.model.subgraphs.append(part)
    go = graph.tensor([1], schema.TensorType.BOOL, b"\1")
    gone = graph.tensor([1], schema.TensorType.BOOL)
    graph.add("WHILE", [go], gone, options="WhileOptions", condSubgraphIndex=1, bodySubgraphIndex=2)


@evil("20,000 operators")
def _operators(graph: Graph) -> None:
    made = graph.tensor([1, 32, 90, 1])
    graph.add("ADD", [graph.entry, graph.entry], made, options="AddOptions")
    graph.main.operators[0:0] = graph.main.operators[:1] * 20_000


@evil("hours of convolutions")
def _slow(graph: Graph) -> None:
    kernel, image = graph.zeros([256, 31, 31, 1]), graph.entry
    wide = graph.zeros([1, 31, 31, 256])
    for at in range(0, 40, 2):
        middle, after = graph.tensor([1, 32, 90, 256]), graph.tensor([1, 32, 90, 1])
        size = {"strideW": 1, "strideH": 1, "options": "Conv2DOptions"}
        graph.add("CONV_2D", [image, kernel], middle, at=at, **size)
        graph.add("CONV_2D", [middle, wide], after, at=at + 1, **size)
        image = after


@evil("a file read by TensorFlow")
def _file(graph: Graph) -> None:
    name, made = graph.tensor([1], STRING, b"/etc/passwd"), graph.tensor([1], STRING)
    graph.add("CUSTOM", [name], made, custom=b"FlexReadFile")


@evil("an operator of its own")
def _custom(graph: Graph) -> None:
    graph.add("CUSTOM", [graph.entry], graph.tensor([1]), custom=b"evil")


@evil("an index far outside")
def _index(graph: Graph) -> None:
    graph.add(
        "GATHER",
        [graph.entry, graph.integers(1 << 30)],
        graph.tensor([1]),
        options="GatherOptions",
    )


@evil("axes far outside")
def _axes(graph: Graph) -> None:
    order = graph.integers(9, -9, 3, 70_000)
    made = graph.tensor([1, 32, 90, 1])
    graph.add("TRANSPOSE", [graph.entry, order], made, options="TransposeOptions")


@evil("a step of zero")
def _step(graph: Graph) -> None:
    for operator in graph.main.operators:
        if hasattr(operator.builtinOptions, "strideW"):
            operator.builtinOptions.strideW = 0


@evil("a window of 2^31")
def _window(graph: Graph) -> None:
    for operator in graph.main.operators:
        if hasattr(operator.builtinOptions, "filterWidth"):
            operator.builtinOptions.filterWidth = operator.builtinOptions.filterHeight = 2**31 - 1


@evil("an operator that feeds itself")
def _itself(graph: Graph) -> None:
    operator = graph.main.operators[3]
    operator.inputs = np.array([operator.outputs[0], *operator.inputs[1:]], np.int32)


@evil("logits that are whole numbers")
def _integers(graph: Graph) -> None:
    made = graph.tensor([1, 4, 36], schema.TensorType.INT64)
    graph.add("CAST", [graph.exit], made, at=None, options="CastOptions")
    graph.main.outputs = np.array([made], np.int32)


@evil("logits that are no numbers")
def _nothing(graph: Graph) -> None:
    made, addend = graph.tensor([1, 4, 36]), np.full(36, np.nan, np.float32).tobytes()
    addends = graph.tensor([36], data=addend)
    graph.add("ADD", [graph.exit, addends], made, at=None, options="AddOptions")
    graph.main.outputs = np.array([made], np.int32)


@evil("a tensor with another number than there are")
def _number(graph: Graph) -> None:
    graph.main.operators[2].inputs = np.array([1 << 20, -7, 3], np.int32)


@evil("no operators")
def _empty(graph: Graph) -> None:
    graph.main.operators = []
