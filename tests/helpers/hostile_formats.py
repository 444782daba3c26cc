"""Section D of the hostile corpus: other formats, and what is no weights file at all; all made by code."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.numpy import save as save_safetensors

from tests.helpers.hostile_case import CANARY, GOOD, Case, array, u, wrap, x


def formats() -> Iterator[Case]:
    """D: other formats, and what is no weights file at all."""
    wrong = {
        "html": b"<!DOCTYPE html><html><title>404</title>",
        "html indented": b"\n\n  <HTML><body>no",
        "json": b'{"a": [1, 2]}',
        "json list": b'[{"image_id": 1}]',
        "AccessDenied": b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
        "xml": b'<?xml version="1.0"?><a/>',
        "gzip": b"\x1f\x8b\x08" + b"\0" * 99,
        "bzip2": b"BZh91AY",
        "xz": b"\xfd7zXZ\0\0",
        "zstd": b"\x28\xb5\x2f\xfd0",
        "tar": b"pax_global_header" + b"\0" * 240 + b"ustar\x0000" + b"\0" * 400,
        "npy": b"\x93NUMPY\x01\0",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "md5": b"3ae556bf3de044a56eb3ecb66fea5cda\n",
        "md5 with name": b"3ae556bf3de044a56eb3ecb66fea5cda  model_final.pkl\n",
        "png": b"\x89PNG\r\n\x1a\n",
        "jpeg": b"\xff\xd8\xff\xe0",
        "zeros": b"\0" * 5000,
        "noise": bytes(range(200, 256)) * 9,
        "text": b"hello there",
        "one byte": b"\x80",
        "empty": b"",
        "yaml": b"MODEL:\n  TYPE: x\n",
        "empty zip": b"PK\x05\x06" + b"\0" * 18,
        "legacy torch": b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
    }
    for name, content in wrong.items():
        yield Case(f"D24 {name}", content, ("WrongFormat", "TruncatedFile"))
    npz = io.BytesIO()
    np.savez(npz, **GOOD)
    yield Case("D24 npz", npz.getvalue(), ("WrongFormat",))
    yield Case("D24 zip", _zip({"a.txt": b"a"}), ("WrongFormat",))
    yield from _torch_cases()
    yield from _hdf5_cases()
    yield from _safetensors_cases()
    for text in YAML_BOMBS:
        yield Case(f"D27 cfg {ascii(text[:40])}", pickle.dumps({"blobs": GOOD, "cfg": text}, 2), blobs=tuple(GOOD))
    yield Case("D27 cfg is bytes", pickle.dumps({"blobs": GOOD, "cfg": b"a: 1"}, 3), blobs=tuple(GOOD))
    yield Case("D27 cfg is a dict", pickle.dumps({"blobs": GOOD, "cfg": {"a": 1}}, 2), blobs=tuple(GOOD))
    yield Case("D27 cfg latin1", b"\x80\x02}(" + u(b"cfg") + u(b"a: \xe9") + u(b"w") + array() + b"u.", blobs=("w",))
    yield Case("D27 cfg of 10 MB", pickle.dumps({"blobs": GOOD, "cfg": "a" * 10_000_000}, 2), ("MalformedFile",))


YAML_BOMBS = [
    f"!!python/object/apply:os.system ['touch {CANARY}']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object/new:subprocess.Popen [[touch, x]]",
    "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n" * 3,
    "a: {<<: {b: 1}}",
    "a: 1\na: 2",
    "a:\t1",
    "\ufeffa: 1",
    "a: !!binary aGk=",
    "a: !!python/unicode 'x'",
    "a: !!python/object/apply:numpy.core.multiarray.scalar [!!python/object/apply:os.system ['x']]",
    "!!python/object/apply:builtins.eval ['1']",
    "a: &a [*a]",
    "[" * 5000,
]


def _zip(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def _torch_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _torch_cases() -> Iterator[Case]:
    good = _torch_file({"blobs": {name: torch.from_numpy(value) for name, value in GOOD.items()}})
    yield Case("D25 good", good, blobs=tuple(GOOD))
    members = {}
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        for info in archive.infolist():
            members[info.filename] = archive.read(info)
    folder = next(iter(members)).split("/")[0]
    data = members[f"{folder}/data.pkl"]
    yield Case("D25 rewritten", _zip(members), blobs=tuple(GOOD))
    yield Case("D25 compressed", _zip(members, zipfile.ZIP_DEFLATED), ("MalformedFile",))
    bomb = members | {f"{folder}/data/0": b"\0" * 10_000_000}
    yield Case("D25 zip bomb", _zip(bomb, zipfile.ZIP_DEFLATED), ("OverBudget", "MalformedFile"))
    yield Case("D25 traversal", _zip(members | {f"{folder}/../../evil": b"x"}), ("ForbiddenContent",))
    yield Case("D25 member missing", _zip({k: v for k, v in members.items() if "data/0" not in k}), ("MalformedFile",))
    yield Case("D25 member short", _zip(members | {f"{folder}/data/0": b"1234"}), ("MalformedFile",))
    yield Case("D25 big-endian", _zip(members | {f"{folder}/byteorder": b"big"}), ("UnsupportedArray",))
    twice = _zip(members | {f"{folder}/data/x": bytes(24)}).replace(b"data/x", b"data/0")
    yield Case("D25 duplicate member", twice, ("MalformedFile",))
    at = good.index(b"PK\x01\x02")
    yield Case("D25 encrypted flag", good[: at + 8] + b"\x01" + good[at + 9 :], ("MalformedFile",))
    yield Case("D25 wrong CRC", good[: at + 16] + b"\1\2\3\4" + good[at + 20 :], ("MalformedFile",))
    yield Case(
        "D25 local header lies", good.replace(b"PK\x03\x04", b"PK\x03\x05", 1), ("MalformedFile", "WrongFormat")
    )
    crowd = {f"{folder}/data.pkl": data} | {f"{folder}/{number}": b"" for number in range(90_000)}
    yield Case("D25 directory of 90000", _zip(crowd), ("OverBudget", "MalformedFile", "TruncatedFile"))
    yield Case("D25 no end", good[:-1], ("TruncatedFile",))
    yield Case("D25 local name lies", good.replace(b"data.pkl", b"data.pxl", 1), ("MalformedFile",))
    payloads = {
        "os.system": b"\x80\x02cos\nsystem\n" + u(f"touch {CANARY}".encode()) + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + x("os") + x("system") + b"\x93.",
        "torch.load": b"\x80\x02ctorch\nload\n)R.",
        "rebuild of rebuild": b"\x80\x02ctorch._utils\n_rebuild_tensor\n)R.",
        "storage of os": b"\x80\x02(" + x("storage") + b"cos\nsystem\n" + x("0") + x("cpu") + b"K\x06tQ.",
        "persistent text": b"\x80\x02" + x("0") + b"Q.",
        "numpy array": wrap(array()),
    }
    for name, payload in payloads.items():
        yield Case(f"D25 data.pkl {name}", _zip(members | {f"{folder}/data.pkl": payload}), ("ForbiddenContent",))
    for name, old, new in (
        ("offset 2^31", b"QK\x00", b"QJ\xff\xff\xff\x7f"),
        ("offset -1", b"QK\x00", b"QJ\xff\xff\xff\xff"),
        ("size 255", b"K\x02K\x03\x86", b"K\xffK\xff\x86"),
        ("stride 255", b"K\x03K\x01\x86", b"K\xffK\x01\x86"),
        ("stride short", b"K\x03K\x01\x86", b"K\x01\x85"),
        ("storage 2^31", b"K\x06t", b"J\xff\xff\xff\x7ft"),
    ):
        changed = data.replace(old, new, 1)
        assert changed != data, name
        yield Case(
            f"D25 tensor {name}", _zip(members | {f"{folder}/data.pkl": changed}), ("UnsupportedArray", "MalformedFile")
        )
    yield Case("D25 bfloat16", _torch_file({"w": torch.ones(2, dtype=torch.bfloat16)}), ("UnsupportedArray",))
    yield Case("D25 a whole module", _torch_file(torch.nn.Linear(2, 2)), ("ForbiddenContent",))
    yield Case("D25 a state dictionary", _torch_file(torch.nn.Linear(2, 2).state_dict()), blobs=("weight", "bias"))
    yield Case("D25 stride 0 bomb", _torch_file({"w": torch.ones(1).expand(10_000_000)}), ("OverBudget",))


def _hdf5_cases() -> Iterator[Case]:
    def make(fill: Callable[[h5py.File], object], **options: object) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            with h5py.File(path, "w", **options) as handle:
                handle["w"] = GOOD["conv1_w"]
                fill(handle)

        return write

    def linked(handle: h5py.File, link: object) -> None:
        handle["other"] = link

    def virtual(handle: h5py.File) -> None:
        layout = h5py.VirtualLayout((2, 3), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "w", (2, 3))
        handle.create_virtual_dataset("v", layout)

    unsupported, malformed = ("UnsupportedArray",), ("MalformedFile",)
    others = dict.fromkeys(
        ("external link", "soft link", "soft link to nothing", "external storage"), "ForbiddenContent"
    )
    others |= dict.fromkeys(("hard link", "virtual dataset", "group", "committed type"), "MalformedFile")
    fills: dict[str, Callable[[h5py.File], object]] = {
        "external link": lambda f: linked(f, h5py.ExternalLink("/etc/passwd", "/")),
        "soft link": lambda f: linked(f, h5py.SoftLink("/w")),
        "soft link to nothing": lambda f: linked(f, h5py.SoftLink("/none")),
        "hard link": lambda f: linked(f, f["w"]),
        "virtual dataset": virtual,
        "group": lambda f: f.create_group("g"),
        "external storage": lambda f: f.create_dataset("e", (4,), "u1", external=[("/etc/passwd", 0, 4)]),
        "chunked 10 TB": lambda f: f.create_dataset("c", (10**13,), "u1", chunks=(10**6,)),
        "contiguous 10 TB": lambda f: f.create_dataset("c", (10**13,), "u1"),
        "compressed": lambda f: f.create_dataset("c", data=np.zeros(10**6, "u1"), compression="gzip"),
        "fletcher": lambda f: f.create_dataset("c", data=np.zeros(100, "u1"), fletcher32=True),
        "object reference": lambda f: f.create_dataset("r", data=f["w"].ref, dtype=h5py.ref_dtype),
        "strings": lambda f: f.create_dataset("s", data=["a", "b"]),
        "bytes": lambda f: f.create_dataset("s", data=np.bytes_("ab")),
        "vlen": lambda f: f.create_dataset("v", (2,), h5py.vlen_dtype("f4")),
        "opaque": lambda f: f.create_dataset("o", data=np.void(b"ab")),
        "compound": lambda f: f.create_dataset("c", data=np.zeros(2, "f4,i4")),
        "complex": lambda f: f.create_dataset("c", data=np.ones(2, "c8")),
        "enum": lambda f: f.create_dataset("e", (2,), h5py.enum_dtype({"A": 0, "B": 1})),
        "null": lambda f: f.create_dataset("n", data=h5py.Empty("f4")),
        "long double": lambda f: f.create_dataset("l", data=np.ones(2, "g")),
        "committed type": lambda f: f.__setitem__("t", np.dtype("f4")),
    }
    for name, fill in fills.items():
        yield Case(f"D26 {name}", make(fill), (others.get(name, "UnsupportedArray"),), suffix=".h5")
    yield Case("D26 newer layout", make(lambda f: None, libver="latest"), unsupported, suffix=".h5")
    yield Case("D26 user block", make(lambda f: None, userblock_size=512), ("WrongFormat",), suffix=".h5")
    yield Case("D26 parity file layout", make(lambda f: f.create_group("blobs")), malformed, suffix=".h5")
    yield Case("D26 plain", make(lambda f: None), blobs=("w",), suffix=".h5")
    yield Case(
        "D26 attribute of pickle",
        make(lambda f: f.attrs.__setitem__("p", np.void(pickle.dumps(print)))),
        blobs=("w",),
        suffix=".h5",
    )
    yield Case(
        "D26 wrong sha256", make(lambda f: f.attrs.__setitem__("sha256", np.bytes_("0" * 64))), malformed, suffix=".h5"
    )
    yield Case(
        "D26 big-endian", make(lambda f: f.create_dataset("b", data=np.ones(2, ">f8"))), blobs=("b", "w"), suffix=".h5"
    )


def _safetensors_cases() -> Iterator[Case]:
    good = save_safetensors(GOOD)
    yield Case("D24 safetensors good", good, blobs=("conv1_b", "conv1_w"), suffix=".safetensors")
    body = good[8 + int.from_bytes(good[:8], "little") :]

    def headed(header: object, tail: bytes = body) -> bytes:
        text = header.encode() if isinstance(header, str) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + tail

    def one(**changes: object) -> dict[str, object]:
        return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}

    bad = {
        "header 2^31": struct.pack("<Q", 2**31) + b"{}" * 40,
        "header past end": struct.pack("<Q", 9999) + b"{}" * 40,
        "not json": headed("{not json}"),
        "empty": headed({}, b""),
        "list": headed("{[1]}"),
        "hole": headed(one(data_offsets=[4, 12])),
        "overlap": headed(one() | {"v": one()["w"]}),
        "negative": headed(one(data_offsets=[-8, 0])),
        "shape lies": headed(one(shape=[10**9])),
        "shape overflow": headed(one(shape=[2**62, 2**62])),
        "dtype": headed(one(dtype="OBJECT")),
        "bf16": headed(one(dtype="BF16", shape=[4]), b"\0" * 8),
        "tail": headed(one()),
        "key twice": headed(
            '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}'
        ),
        "metadata number": headed(one() | {"__metadata__": {"a": 1}}, b"\0" * 8),
        "name NUL": headed({"a\0": one()["w"]}, b"\0" * 8),
    }
    for name, content in bad.items():
        yield Case(
            f"D24 safetensors {name}",
            content,
            ("MalformedFile", "UnsupportedArray", "TruncatedFile", "WrongFormat"),
            suffix=".safetensors",
        )
