"""The rows of COCO's results as columns on the disk: what is found in a data set of any size, in little memory."""

import operator
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.evaluation.results_files import SHAPE_KEY, IouType, ResultRow

Array = npt.NDArray[Any]

# Values that are kept back before they are written.
_PENDING = 1 << 14
# Rows that are put in order at a time.
_ROWS = 1 << 18


class Column:
    """Values of one type that are added at the end of an unnamed file, and read as an array of it.

    Args:
        width: of an array in each row; 0 for single values.
    """

    def __init__(self, dtype: str, width: int = 0) -> None:
        self._dtype, self._width = np.dtype(dtype), width
        self._pending: list[Any] = []
        self._file = tempfile.TemporaryFile()
        self._bytes = 0
        self._array: Array | None = None

    def append(self, value: Any) -> None:
        """Add a row."""
        self._pending.append(value)
        if len(self._pending) >= _PENDING:
            self._flush()

    def extend(self, values: Array) -> None:
        """Add the rows of an array."""
        self._flush()
        content = np.ascontiguousarray(values, self._dtype)
        self._file.write(content.data)
        self._bytes += content.nbytes
        self._array = None

    def array(self) -> Array:
        """`[N]` or `[N, width]`, mapped into memory, of the rows of now."""
        self._flush()
        if self._array is None:
            self._file.flush()
            # A plain array is sliced in a fraction of the time of numpy's memmap.
            mapped = np.memmap(self._file, self._dtype, "r") if self._bytes else np.zeros(0, self._dtype)
            self._array = np.asarray(mapped).reshape(-1, self._width) if self._width else np.asarray(mapped)
        return self._array

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            self.extend(np.asarray(pending, self._dtype))

    def __getstate__(self) -> dict[str, Any]:
        return {"dtype": self._dtype.str, "width": self._width, "rows": np.array(self.array())}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["dtype"], state["width"])  # type: ignore[misc]
        self.extend(state["rows"])


class ResultColumns(Sequence[ResultRow]):
    """Rows of one type, which are made again of the columns when they are asked for.

    Of a row it keeps the image, the category, the score and the shape: of keypoints their places.

    Args:
        iou_type: of all rows.
        categories: ids in the order that `sorted_rows` gives rows; others come behind them.

    Attributes:
        image_ids, category_ids: what the numbers of `image` and `category` stand for.
    """

    def __init__(self, iou_type: IouType, categories: Iterable[Any] = ()) -> None:
        self.iou_type = iou_type
        self.image_ids: list[Any] = []
        self.category_ids: list[Any] = list(categories)
        self._images: dict[Any, int] = {}
        self._categories = {each: number for number, each in enumerate(self.category_ids)}
        self._image, self._category, self._score = Column("i4"), Column("i4"), Column("f8")
        # Boxes, or places of keypoints, whose number the first row tells.
        self._numbers: Column | None = None
        # Run lengths, one mask behind the other; where each ends; height and width.
        self._counts, self._ends, self._sizes, self._length = Column("u1"), Column("i8"), Column("i4", 2), 0
        self._order: Array | None = None

    def append(self, row: ResultRow) -> None:
        """Add a row that is what it should be."""
        self._image.append(self._number(row["image_id"], self._images, self.image_ids))
        self._category.append(self._number(row["category_id"], self._categories, self.category_ids))
        self._score.append(row["score"])
        shape = row[SHAPE_KEY[self.iou_type]]
        if self.iou_type == "segm":
            counts = shape["counts"]
            values = np.frombuffer(counts if isinstance(counts, bytes) else counts.encode(), np.uint8)
            self._counts.extend(values)
            self._length += len(values)
            self._ends.append(self._length)
            self._sizes.append(list(shape["size"]))
            return
        numbers = list(shape)
        if self.iou_type == "keypoints":
            del numbers[2::3]
        self._numbers = self._numbers or Column("f8", len(numbers))
        self._numbers.append(numbers)

    def extend(self, rows: Iterable[ResultRow]) -> None:
        """Add rows that are what they should be."""
        for row in rows:
            self.append(row)

    @classmethod
    def of(cls, rows: Iterable[ResultRow], iou_type: IouType) -> "ResultColumns":
        """The columns of rows that are what they should be."""
        columns = cls(iou_type)
        columns.extend(rows)
        return columns

    def join(self, other: "ResultColumns") -> None:
        """Add the rows of other columns of the same type."""
        images = [self._number(each, self._images, self.image_ids) for each in other.image_ids]
        categories = [self._number(each, self._categories, self.category_ids) for each in other.category_ids]
        self._image.extend(np.asarray(images, np.int32)[other.image])
        self._category.extend(np.asarray(categories, np.int32)[other.category])
        self._score.extend(other.score)
        if other._numbers is not None:
            self._numbers = self._numbers or Column("f8", other.numbers.shape[1])
            self._numbers.extend(other.numbers)
        self._counts.extend(other._counts.array())
        self._ends.extend(other._ends.array() + self._length)
        self._sizes.extend(other._sizes.array())
        self._length += other._length

    @property
    def image(self) -> Array:
        """`[N]` int32: the place of each row's image in `image_ids`."""
        return self._image.array()

    @property
    def category(self) -> Array:
        """`[N]` int32: the place of each row's category in `category_ids`."""
        return self._category.array()

    @property
    def score(self) -> Array:
        """`[N]` float64."""
        return self._score.array()

    @property
    def numbers(self) -> Array:
        """`[N, 4]` float64 boxes (x, y, width, height), or `[N, 2K]` keypoints (x, y, x, y, ...)."""
        return np.zeros((0, 4)) if self._numbers is None else self._numbers.array()

    def masks(self, rows: Array) -> list[dict[str, Any]]:
        """The run lengths of some rows, by their places in the columns."""
        counts, ends, sizes = self._counts.array(), self._ends.array(), self._sizes.array()
        return [
            {"size": sizes[row].tolist(), "counts": counts[(ends[row - 1] if row else 0) : ends[row]].tobytes()}
            for row in rows.tolist()
        ]

    def by_category(self) -> tuple[Array, Array]:
        """The places `[N]` of all rows by category, as they came, on the disk; and where each category ends in them."""
        count, numbers = len(self), len(self.category_ids)
        categories = [self.category[start : start + _ROWS] for start in range(0, count, _ROWS)]
        counts = np.zeros(numbers, np.int64)
        for each in categories:
            counts += np.bincount(each, minlength=numbers)
        ends = np.cumsum(counts)
        free = ends - counts
        with tempfile.TemporaryFile() as file:
            places = np.asarray(np.memmap(file, np.int64, "w+", shape=(count,)) if count else np.zeros(0, np.int64))
        for number, each in enumerate(categories):
            order = np.argsort(each, kind="stable")
            grouped = each[order]
            places[free[grouped] + np.arange(len(each)) - np.searchsorted(grouped, grouped)] = number * _ROWS + order
            free += np.bincount(each, minlength=numbers)
        return places, ends

    def sorted_rows(self) -> "ResultColumns":
        """The same rows by category, then image id, then as they came: the order of Detectron's files."""
        ranks = np.empty(len(self.image_ids), np.int64)
        ranks[sorted(range(len(self.image_ids)), key=self.image_ids.__getitem__)] = np.arange(len(self.image_ids))
        view = object.__new__(ResultColumns)
        view.__dict__.update(self.__dict__)
        view._order, ends = self.by_category()
        for start, end in zip((0, *ends.tolist()), ends.tolist(), strict=False):
            own = view._order[start:end]
            own[:] = own[np.argsort(ranks[self.image[own]], kind="stable")]
        return view

    def __len__(self) -> int:
        return len(self._image.array())

    @overload
    def __getitem__(self, place: int) -> ResultRow: ...
    @overload
    def __getitem__(self, place: slice) -> list[ResultRow]: ...
    def __getitem__(self, place: int | slice) -> ResultRow | list[ResultRow]:
        """Rows of now."""
        places = np.arange(len(self)) if self._order is None else self._order
        if isinstance(place, slice):
            return list(self._rows(places[place]))
        return next(self._rows(places[place : place + 1 or None]))

    def __iter__(self) -> Iterator[ResultRow]:
        for start in range(0, len(self), _PENDING):
            yield from self[start : start + _PENDING]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def _rows(self, places: Array) -> Iterator[ResultRow]:
        images, categories = self.image[places].tolist(), self.category[places].tolist()
        shapes: Iterable[Any]
        if self.iou_type == "segm":
            shapes = ({"size": mask["size"], "counts": mask["counts"].decode()} for mask in self.masks(places))
        elif self.iou_type == "keypoints":
            shapes = (_points(numbers) for numbers in self.numbers[places].tolist())
        else:
            shapes = self.numbers[places].tolist()
        key = SHAPE_KEY[self.iou_type]
        for image, category, shape, score in zip(images, categories, shapes, self.score[places].tolist(), strict=True):
            yield {
                "image_id": self.image_ids[image],
                "category_id": self.category_ids[category],
                key: shape,
                "score": score,
            }

    def _number(self, identity: Any, known: dict[Any, int], ids: list[Any]) -> int:
        number = known.setdefault(identity, len(ids))
        if number == len(ids):
            ids.append(identity)
        return number


def _points(numbers: list[float]) -> list[float]:
    return [number for x, y in zip(numbers[::2], numbers[1::2], strict=True) for number in (x, y, 1)]
