"""Facts of reading Detectron's pickles, on files made by Python 2.7 and by every protocol of Python 3."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from detectron_gn.weights.errors import (
    FileError,
    ForbiddenContent,
    MalformedFile,
    OverBudget,
    TruncatedFile,
    UnsupportedArray,
    WrongFormat,
)

# {'blobs': {'w': float32 [1, -2]}, 'cfg': 'a: 1\n'}, as cPickle of Python 2.7 with numpy 1.16 writes it.
PYTHON_27 = (
    b"\x80\x02}q\x01(U\x03cfgq\x02U\x05a: 1\nq\x03U\x05blobsq\x04}q\x05U\x01wq\x06"
    b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t"
    b"(K\x01K\x02\x85cnumpy\ndtype\nq\nU\x02f4K\x00K\x01\x87Rq\x0b"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0tbsu."
)


def read(content: bytes, folder: Path, name: str = "model_final.pkl") -> WeightsFile:
    path = folder / name
    path.write_bytes(content)
    return read_blobs(path)


def test_reads_what_python_27_wrote(tmp_path: Path) -> None:
    weights = read(PYTHON_27, tmp_path)
    assert list(weights.blobs) == ["w"]
    assert weights.blobs["w"].dtype == np.dtype("<f4") and weights.blobs["w"].tolist() == [1.0, -2.0]
    assert (weights.cfg, weights.iteration, weights.format, weights.left_out) == ("a: 1\n", None, "pkl", {})


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrapped", [True, False])
def test_reads_every_protocol_of_python_3(protocol: int, wrapped: bool, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    # Larger than the 1 MiB pieces of the decoder, and full of bytes that text protocols escape.
    blobs = {"big": chance.integers(0, 256, (3, 700_001), dtype="u1"), "w": chance.standard_normal((2, 3)).astype("f4")}
    top = {"blobs": blobs, "cfg": "a: \u00e9\n"} if wrapped else blobs
    weights = read(pickle.dumps(top, protocol), tmp_path)
    assert list(weights.blobs) == list(blobs)
    for name, array in blobs.items():
        assert weights.blobs[name].dtype == array.dtype and np.array_equal(weights.blobs[name], array)
    assert weights.cfg == ("a: \u00e9\n" if wrapped else None)


def test_reads_the_text_protocol_of_python_2(tmp_path: Path) -> None:
    """Protocol 0 writes bytes as a string literal; the escapes may fall on the border of two pieces."""
    data = bytes(range(256)) * 5000
    literal = "".join(f"\\x{b:02x}" if b < 32 or b > 126 else {39: "\\'", 92: "\\\\"}.get(b, chr(b)) for b in data)
    element = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    content = (
        b"(dp1\nS'w'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntS'b'\ntRp5\n"
        b"(I1\n(L%dL\nt%bI00\nS'%b'\ntbs." % (len(data), element, literal.encode())
    )
    assert read(content, tmp_path).blobs["w"].tobytes() == data


def test_arrays_are_writable_aligned_and_independent_of_the_file(tmp_path: Path) -> None:
    weights = read(PYTHON_27, tmp_path)
    (tmp_path / "model_final.pkl").write_bytes(b"")
    array = weights.blobs["w"]
    assert array.flags.writeable and array.flags.aligned and array.flags.c_contiguous
    assert array.tolist() == [1.0, -2.0]


def test_fortran_and_big_endian_arrays_become_c_order_little_endian(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6, dtype=">f8").reshape(2, 3))
    found = read(pickle.dumps({"w": array}, 2), tmp_path).blobs["w"]
    assert found.dtype == np.dtype("<f8") and found.flags.c_contiguous and np.array_equal(found, array)


def test_none_and_other_values_among_blobs_are_left_out_by_name(tmp_path: Path) -> None:
    blobs = {"w": np.ones(1, "f4"), "n": None, "f": 1.5, "d": {}}
    left_out = read(pickle.dumps({"blobs": blobs, "epoch": 3}, 2), tmp_path).left_out
    assert left_out == {
        "n": "is None",
        "f": "is a number, not an array",
        "d": "is a dictionary, not an array",
        "epoch": "is a whole number outside 'blobs'",
    }


def test_imagenet_file_without_blobs_keeps_its_classifier(tmp_path: Path) -> None:
    blobs = {"conv1_w": np.ones((1, 1), "f4"), "pred_w": np.ones((2, 1), "f4"), "pred_b": np.ones(2, "f4")}
    assert list(read(pickle.dumps(blobs, 2), tmp_path).blobs) == ["conv1_w", "pred_w", "pred_b"]


@pytest.mark.parametrize(
    ("name", "iteration"),
    [("model_iter2399.pkl", 2399), ("model_iter0.pkl", 0), ("model_final.pkl", None), ("my_model_iter7.pkl", None)],
)
def test_iteration_comes_from_the_name_of_a_pickle(name: str, iteration: int | None, tmp_path: Path) -> None:
    assert read(PYTHON_27, tmp_path, name).iteration == iteration


def test_accents_of_a_python_2_cfg_are_latin_1(tmp_path: Path) -> None:
    content = PYTHON_27.replace(b"U\x05a: 1\n", b"U\x05a: \xe9\n")
    assert read(content, tmp_path).cfg == "a: \u00e9\n"


def test_error_names_the_file_the_offset_and_the_cause(tmp_path: Path) -> None:
    content = PYTHON_27.replace(b"cnumpy\nndarray", b"cposix\nsystem", 1)
    with pytest.raises(ForbiddenContent) as caught:
        read(content, tmp_path)
    at = content.index(b"cposix")
    assert str(caught.value).startswith(f"{tmp_path}/model_final.pkl: asks for the Python object 'posix.system'")
    assert caught.value.offset == at and str(caught.value).endswith(f"(at byte {at})")


@pytest.mark.parametrize("cut", range(1, len(PYTHON_27)))
def test_truncation_at_every_byte_is_named(cut: int, tmp_path: Path) -> None:
    with pytest.raises((TruncatedFile, MalformedFile) if cut < len(PYTHON_27) - 1 else WrongFormat):
        read(PYTHON_27[:-cut], tmp_path)


def test_declared_bytes_are_bounded_by_the_file_before_anything_is_allocated(tmp_path: Path) -> None:
    huge = PYTHON_27.replace(b"(K\x01K\x02\x85", b"(K\x01\x8a\x06" + (10**12).to_bytes(6, "little") + b"\x85")
    with pytest.raises(UnsupportedArray, match="takes 4000000000000 bytes, but has 8"):
        read(huge, tmp_path)


def test_one_array_under_many_names_is_a_bomb(tmp_path: Path) -> None:
    array = np.zeros(10_000, "f4")
    with pytest.raises(OverBudget, match="its arrays would take 400000 bytes, more than 8 times"):
        read(pickle.dumps({f"n{i}": array for i in range(10)}, 2), tmp_path)


def test_one_array_under_two_names_is_read_once(tmp_path: Path) -> None:
    array = np.arange(10_000, dtype="f4")
    blobs = read(pickle.dumps({"a": array, "b": array}, 2), tmp_path).blobs
    assert blobs["a"] is blobs["b"] and np.array_equal(blobs["a"], array)


@pytest.mark.parametrize("place", ["name", "cfg"])
def test_half_of_a_surrogate_pair_is_refused(place: str, tmp_path: Path) -> None:
    """Protocol 0 can spell it; no other format can hold it."""
    content = pickle.dumps({"blobs": {"name": np.ones(2, "f4")}, "cfg": "cfg"}, 0)
    assert content.count(b"V" + place.encode() + b"\n") >= 1
    with pytest.raises(MalformedFile, match="a text is not valid UTF-8"):
        at = content.rindex(b"V" + place.encode() + b"\n")
        read(content[:at] + b"V\\ud800" + content[at + 1 + len(place) :], tmp_path)


@pytest.mark.parametrize("align", [b"K\x00", b"\x89"])
@pytest.mark.parametrize(("code", "copy"), [("f4", 0), ("f4", 1), (">f4", 0), (">f4", 1), ("<f4", 0), ("=f4", 0)])
@pytest.mark.parametrize("order", "<>|=")
@pytest.mark.filterwarnings("ignore:dtype")
def test_byte_order_is_the_one_that_numpy_takes(align: bytes, code: str, copy: int, order: str, tmp_path: Path) -> None:
    """numpy ignores the state of an element type that it shares: `copy` 0, and not big-endian."""
    made = b"U" + bytes([len(code)]) + code.encode() + align + b"K" + bytes([copy])
    content = PYTHON_27.replace(b"U\x02f4K\x00K\x01", made).replace(b"U\x01<", b"U\x01" + order.encode())
    expected = pickle.loads(content, encoding="latin1")["blobs"]["w"]
    assert read(content, tmp_path).blobs["w"].tolist() == expected.tolist()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("elements", [np.array(["a", None], object), np.array(["a", "bc"]), np.array([1j])])
def test_an_array_that_is_no_numbers_is_named(elements: np.ndarray, protocol: int, tmp_path: Path) -> None:
    blobs = {"conv1_w": np.ones(3, np.float32), "labels": elements, "conv1_b": np.ones(3, np.float32)}
    with pytest.raises(FileError, match="labels"):
        read(pickle.dumps({"blobs": blobs}, protocol), tmp_path)


def test_an_element_type_that_an_array_has_already_may_not_be_changed(tmp_path: Path) -> None:
    """numpy would change the array with it."""
    plain = b"cnumpy\ndtype\nq\nU\x02f4K\x00K\x01\x87Rq\x0b"
    state = b"(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    with pytest.raises(UnsupportedArray, match="an element type that is not a plain number"):
        content = PYTHON_27.replace(state.replace(b">", b"<"), b"")
        assert plain in content
        read(content[:-2] + b"U\x01vh\x0b" + state + b"su.", tmp_path)


def test_order_of_an_array_of_protocol_5_is_c_or_f(tmp_path: Path) -> None:
    """numpy also takes `f`, for the same as `F`."""
    content = pickle.dumps({"w": np.asfortranarray([[1.0, 2.0], [3.0, 4.0]])}, 5)
    assert content.count(b"\x8c\x01F") == 1
    assert read(content, tmp_path).blobs["w"].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ForbiddenContent, match="as no array is written"):
        read(content.replace(b"\x8c\x01F", b"\x8c\x01f"), tmp_path)


def test_transposed_arrays_of_protocol_5_are_read(tmp_path: Path) -> None:
    """numpy 2.3 and later give the order of the axes beside the bytes."""
    array = np.arange(24, dtype=">f4").reshape(2, 3, 4).transpose(1, 2, 0)
    content = pickle.dumps({"w": array}, 5)
    found = read(content, tmp_path).blobs["w"]
    assert found.tolist() == array.tolist() and found.flags.c_contiguous
    axes = b"K\x01K\x02K\x00\x87"
    if axes in content:
        without_frame = content[:2] + content[11:]
        assert read(without_frame, tmp_path).blobs["w"].tolist() == array.tolist()
        twice, beyond = b"K\x01K\x01K\x00\x87", b"K\x01K\x02K\x03\x87"
        few, no_number = b"K\x01K\x02\x86", b"\x88K\x02K\x00\x87"
        for wrong in twice, beyond, few, no_number, b"]]]\x87":
            with pytest.raises(ForbiddenContent, match="as no array is written"):
                read(without_frame.replace(axes, wrong), tmp_path)


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match="7 bytes follow the pickle's end"):
        read(PYTHON_27 + b"garbage", tmp_path)


def test_frames_may_not_be_crossed(tmp_path: Path) -> None:
    content = pickle.dumps({"w": np.ones(3, "f4")}, 4)
    size = struct.unpack("<Q", content[3:11])[0]
    with pytest.raises(MalformedFile, match="runs past the end of its frame"):
        read(content[:3] + struct.pack("<Q", size - 30) + content[11:], tmp_path)


def test_demo_model_is_read_as_pickle_reads_it(shared: Path) -> None:
    for name, count, iteration in ("model_final.pkl", 223, None), ("model_iter2399.pkl", 446, 2399):
        path = shared / "parity" / "demo" / name
        weights = read_blobs(path)
        with open(path, "rb") as handle:  # our own file
            expected = pickle.load(handle, encoding="latin1")
        assert list(weights.blobs) == list(expected["blobs"]) and len(weights.blobs) == count
        assert all(np.array_equal(weights.blobs[n], a) for n, a in expected["blobs"].items())
        assert weights.cfg == expected["cfg"] and weights.iteration == iteration


def test_pickle_of_python_27_is_written_back_byte_for_byte(tmp_path: Path) -> None:
    weights = read(PYTHON_27, tmp_path)
    write_blobs(tmp_path / "out.pkl", weights)
    assert (tmp_path / "out.pkl").read_bytes() == PYTHON_27
