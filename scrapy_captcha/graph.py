"""What a model file makes of an image, worked out before LiteRT sees it.

LiteRT reserves whatever memory a model's operators ask for, loops for as long as they say, and
believes shapes. A model comes from elsewhere like an image does; so its file (a FlatBuffer) is gone
through first: one graph, of operators that networks for captchas consist of, whose shapes, memory
and work follow from the shape of its input.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scrapy_captcha.errors import BundleError
from scrapy_captcha.image import HEIGHT, WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Shape = tuple[int, ...]

#: Bytes of tensors, and again of windows; multiplications. The largest network needs a quarter.
MAX_BYTES = 128 << 20
MAX_WORK = 4_000_000_000
MAX_OPERATORS = 1000
#: Entries of a list in the file: of tensors and the like, of an operator's inputs, of notes that
#: are no part of the graph; axes of a tensor.
MAX_ENTRIES = 4000
MAX_INPUTS = 64
MAX_NOTES = 16
MAX_RANK = 8
#: What LiteRT keeps of each scale of a tensor: the scale and its zero point, some of them twice.
_SCALE_BYTES = 16

_FLOAT32 = 0
#: Bytes of a number, by TensorType: float32, float16, int32, uint8, int64, int16, int8.
_WIDTHS = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 7: 2, 9: 1}


class _Table:
    """A table of a FlatBuffer, its fields by their numbers in the schema."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - self._unpack("<i", at)
        self._end = self._unpack("<H", self._fields)

    def number(self, field: int, kind: str = "<i", default: int = 0) -> int:
        at = self._place(field)
        return self._unpack(kind, at) if at else default

    def table(self, field: int) -> _Table | None:
        at = self._place(field)
        return _Table(self._data, self._target(at)) if at else None

    def tables(self, field: int, most: int = MAX_ENTRIES) -> list[_Table]:
        begin, count = self._vector(field, 4, most)
        places = range(begin, begin + 4 * count, 4)
        return [_Table(self._data, self._target(at)) for at in places]

    def numbers(self, field: int, most: int) -> Shape:
        begin, count = self._vector(field, 4, most)
        return struct.unpack_from(f"<{count}i", self._data, begin)

    def bytes(self, field: int) -> memoryview:
        begin, count = self._vector(field, 1)
        return self._data[begin : begin + count]

    def count(self, field: int) -> int:
        return self._vector(field, 1)[1]

    def _place(self, field: int) -> int:
        entry = 4 + 2 * field
        offset = self._unpack("<H", self._fields + entry) if entry < self._end else 0
        return self._at + offset if offset else 0

    def _target(self, at: int) -> int:
        return at + self._unpack("<I", at)

    def _vector(self, field: int, width: int, most: int | None = None) -> tuple[int, int]:
        """Where a list begins, and how many entries it has, which are all in the file."""
        at = self._place(field)
        if not at:
            return 0, 0
        begin = self._target(at)
        count = self._unpack("<I", begin)
        if most is not None and count > most:
            raise BundleError(f"expected at most {most} entries in a list, got {count}")
        self._need(begin + 4, width * count)
        return begin + 4, count

    def _unpack(self, kind: str, at: int) -> int:
        self._need(at, struct.calcsize(kind))
        (number,) = struct.unpack_from(kind, self._data, at)
        return int(number)

    def _need(self, at: int, size: int) -> None:
        if at < 0 or at + size > len(self._data):
            raise BundleError("the model file is cut off or damaged")


@dataclass(frozen=True)
class _Tensor:
    """A tensor as the file declares it.

    :param constant: its content, if it is not computed
    :param scales: numbers that its content is multiplied by
    """

    shape: Shape
    type: int
    constant: memoryview
    scales: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * _WIDTHS[self.type]

    @property
    def integers(self) -> Shape:
        """The content of a constant of int32."""
        if self.type != 2 or not 0 < len(self.constant) <= 4 * MAX_RANK:
            raise BundleError("an operator's shape or axes are not constant")
        return struct.unpack(f"<{len(self.constant) // 4}i", self.constant)


@dataclass(frozen=True)
class _Operator:
    """An operator with the tensors that go into it."""

    inputs: tuple[_Tensor, ...]
    options: _Table | None

    def option(self, field: int, kind: str = "<i", default: int = 0) -> int:
        return self.options.number(field, kind, default) if self.options else default

    def flag(self, field: int) -> bool:
        return bool(self.option(field, "<B"))


#: What an operator makes: the shape, and how many multiplications each number of it takes.
_Result = tuple["Shape", int]


def _same(operator: _Operator) -> _Result:
    return operator.inputs[0].shape, 1


def _broadcast(operator: _Operator) -> _Result:
    one, other = (tensor.shape for tensor in operator.inputs)
    return _together(one, other), 1


def _together(one: Shape, other: Shape) -> Shape:
    rank = max(len(one), len(other))
    pairs = zip(*((1,) * (rank - len(shape)) + shape for shape in (one, other)), strict=True)
    return tuple(max(pair) for pair in pairs)


def _convolution(operator: _Operator) -> _Result:
    image, kernel = (tensor.shape for tensor in operator.inputs[:2])
    filters, rows, columns, channels = kernel
    spread = [
        (size - 1) * operator.option(field, default=1) + 1
        for size, field in ((rows, 5), (columns, 4))
    ]
    return (image[0], *_window(operator, image, spread), filters), rows * columns * channels


def _pooling(operator: _Operator) -> _Result:
    image = operator.inputs[0].shape
    size = [operator.option(field) for field in (4, 3)]
    return (image[0], *_window(operator, image, size), image[3]), size[0] * size[1]


def _window(operator: _Operator, image: Shape, size: list[int]) -> list[int]:
    """Rows and columns of what a window that moves over an image makes."""
    valid = operator.flag(0)
    steps = [operator.option(field) for field in (2, 1)]
    if min(*steps, *size) < 1:
        raise BundleError("a window of no size or that does not move")
    return [
        -(-(length - (width - 1) * valid) // step)
        for length, width, step in zip(image[1:3], size, steps, strict=True)
    ]


def _dense(operator: _Operator) -> _Result:
    image, (units, channels) = (tensor.shape for tensor in operator.inputs[:2])
    keeps = operator.flag(2)
    return (*(image[:-1] if keeps else (math.prod(image) // channels,)), units), channels


def _product(operator: _Operator) -> _Result:
    one, other = (tensor.shape for tensor in operator.inputs)
    if operator.flag(0):
        one = (*one[:-2], one[-1], one[-2])
    if operator.flag(1):
        other = (*other[:-2], other[-1], other[-2])
    return (*_together(one[:-2], other[:-2]), one[-2], other[-1]), one[-1]


def _reshape(operator: _Operator) -> _Result:
    image, *shape = operator.inputs
    wanted = shape[0].integers if shape else _new_shape(operator)
    known = math.prod(side for side in wanted if side != -1)
    rest = math.prod(image.shape) // max(known, 1)
    made = tuple(rest if side == -1 else side for side in wanted)
    if math.prod(made) != math.prod(image.shape):
        raise BundleError(f"{image.shape} cannot become {made}")
    return made, 1


def _new_shape(operator: _Operator) -> Shape:
    return operator.options.numbers(0, MAX_RANK) if operator.options else ()


def _transpose(operator: _Operator) -> _Result:
    image, order = operator.inputs
    if sorted(order.integers) != list(range(len(image.shape))):
        raise BundleError(f"{order.integers} is no order of {len(image.shape)} axes")
    return tuple(image.shape[axis] for axis in order.integers), 1


def _reduce(operator: _Operator) -> _Result:
    image, axes = operator.inputs[0].shape, operator.inputs[1].integers
    reduced = {axis % len(image) for axis in axes}
    kept = operator.flag(0)
    sides = (1 if axis in reduced else side for axis, side in enumerate(image))
    made = tuple(side for axis, side in enumerate(sides) if kept or axis not in reduced)
    return made, math.prod(image)


def _join(operator: _Operator) -> _Result:
    first, axis = operator.inputs[0].shape, operator.option(0)
    along = sum(tensor.shape[axis] for tensor in operator.inputs)
    axis %= len(first)
    return (*first[:axis], along, *first[axis + 1 :]), 1


#: By BuiltinOperator: add, average pool, concatenation, convolution, dequantize, dense, sigmoid,
#: max pool, multiply, relu, reshape, softmax, transpose, mean, subtract, batch matmul.
_OPERATORS: dict[int, Callable[[_Operator], _Result]] = {
    0: _broadcast,
    1: _pooling,
    2: _join,
    3: _convolution,
    6: _same,
    9: _dense,
    14: _same,
    17: _pooling,
    18: _broadcast,
    19: _same,
    22: _reshape,
    25: _same,
    39: _transpose,
    40: _reduce,
    41: _broadcast,
    126: _product,
}


#: Those that keep the place of each number in each window: average pool, convolution, max pool.
_WINDOWS = {1, 3, 17}
_POINTER = 8


def check_graph(content: bytes, heads: int, classes: int) -> None:
    """Make sure that a model file can be given to LiteRT.

    :param content: the model file
    :param heads: characters that it reads
    :param classes: what each of them may be
    :raises BundleError: when it has other inputs or outputs, or operators that no network for
        captchas needs, or would take much memory or time
    """
    try:
        _check(content, (1, HEIGHT, WIDTH, 1), (1, heads, classes))
    except BundleError:
        raise
    except (ValueError, IndexError, ZeroDivisionError, OverflowError, struct.error) as e:
        raise BundleError(f"the model file makes no sense: {type(e).__name__}: {e}") from None


def _check(content: bytes, entry: Shape, exit_: Shape) -> None:
    if content[4:8] != b"TFL3":
        raise BundleError("not a LiteRT model file")
    model = _Table(memoryview(content), int.from_bytes(content[:4], "little"))
    graphs = model.tables(2, MAX_NOTES)
    if len(graphs) != 1:
        raise BundleError(f"expected one graph, got {len(graphs)}")
    buffers = model.tables(4)
    tensors = list(_tensors(graphs[0], buffers))
    codes = [max(code.number(0, "<b"), code.number(3)) for code in model.tables(1)]
    (first,), (last,) = graphs[0].numbers(1, MAX_INPUTS), graphs[0].numbers(2, MAX_INPUTS)
    shapes = tensors[first].shape, tensors[last].shape
    if shapes != (entry, exit_) or {tensors[first].type, tensors[last].type} != {_FLOAT32}:
        raise BundleError(f"expected shapes {(entry, exit_)} of float32, got {shapes}")
    operators = graphs[0].tables(3, MAX_OPERATORS)
    size = _held(tensors, operators) + _noted(model, buffers)
    if size > MAX_BYTES:
        raise BundleError(f"its tensors would take {size >> 20} MB, at most {MAX_BYTES >> 20}")
    known = {i for i, tensor in enumerate(tensors) if tensor.constant} | {first}
    work = windows = 0
    for operator in operators:
        (made,) = operator.numbers(2, MAX_INPUTS)
        shape, each, code = _computed(operator, codes, tensors, known)
        work += math.prod(shape) * each
        if work > MAX_WORK:
            raise BundleError(f"an image would take more than {MAX_WORK:.0e} multiplications")
        windows += math.prod(shape[:-1]) * each * _POINTER if code in _WINDOWS else 0
        if windows > MAX_BYTES:
            raise BundleError(f"windows would take more than {MAX_BYTES >> 20} MB")
        known.add(made)
    if last not in known:
        raise BundleError("the output is not computed")


def _tensors(graph: _Table, buffers: list[_Table]) -> Iterator[_Tensor]:
    """The tensors of a graph, each fully known: no negative side, no content of another size."""
    for table in graph.tables(0):
        shape, kind = table.numbers(0, MAX_RANK), table.number(1, "<b")
        table.numbers(7, MAX_RANK)  # the shape once more
        quantization = table.table(4)
        scales = max(map(quantization.count, (2, 3))) if quantization else 0
        constant = buffers[table.number(2, "<I")].bytes(0)
        tensor = _Tensor(shape, kind, constant, scales)
        odd = kind not in _WIDTHS or min(shape, default=1) < 0 or table.number(5, "<B")
        if odd or table.table(6) is not None or (constant and len(constant) != tensor.bytes):
            raise BundleError(f"a tensor of type {kind} and shape {shape} cannot be used")
        yield tensor


def _held(tensors: list[_Tensor], operators: list[_Table]) -> int:
    """Bytes of all tensors; each operator may make itself a copy of a constant that it takes."""
    taken = Counter(i for operator in operators for i in operator.numbers(1, MAX_INPUTS))
    return sum(
        tensor.bytes * (max(taken[i], 1) if tensor.constant else 1) + tensor.scales * _SCALE_BYTES
        for i, tensor in enumerate(tensors)
    )


def _noted(model: _Table, buffers: list[_Table]) -> int:
    """Bytes that are copied beside the graph: metadata, and names of what goes in and out."""
    size = 0
    for note in model.tables(6, MAX_NOTES):
        size += note.count(0) + buffers[note.number(1, "<I")].count(0)
    for signature in model.tables(7, MAX_NOTES):
        names = signature.tables(0, MAX_NOTES) + signature.tables(1, MAX_NOTES)
        size += signature.count(2) + sum(name.count(0) for name in names)
    return size


def _computed(
    operator: _Table, codes: list[int], tensors: list[_Tensor], known: set[int]
) -> tuple[Shape, int, int]:
    """What an operator makes, which must be as declared; multiplications for each number; code."""
    code, inputs, (made,) = (
        codes[operator.number(0, "<I")],
        operator.numbers(1, MAX_INPUTS),
        operator.numbers(2, MAX_INPUTS),
    )
    if code not in _OPERATORS or operator.count(8):
        raise BundleError(f"the model has an operator that is not allowed, number {code}")
    given = [i for i in inputs if i != -1]
    if made < 0 or made in known or not known.issuperset(given):
        raise BundleError("the model's operators are not in order")
    shape, each = _OPERATORS[code](_Operator(tuple(tensors[i] for i in given), operator.table(4)))
    if shape != tensors[made].shape:
        raise BundleError(f"a tensor is declared as {tensors[made].shape} and would be {shape}")
    return shape, each, code
