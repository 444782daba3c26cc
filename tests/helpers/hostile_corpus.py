"""Several hundred files that a weights reader must refuse, or read as exactly what they say; all made by code.

The numbers in the section comments are those of the test plan: A structure of the pickle, B code, C arrays,
D formats and wrong files, E what a file means. `write_all(folder)` writes every case and returns them.
"""

from __future__ import annotations

import pickle
import random
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.helpers.hostile_case import CANARY, CFG, GOOD, RECONSTRUCT, Case, array, dtype, integer, u, wrap, x
from tests.helpers.hostile_formats import formats


def structure() -> Iterator[Case]:
    """A: what the opcodes may look like."""
    for protocol in range(6):
        for form, top in {"wrapped": {"blobs": GOOD, "cfg": CFG}, "bare": GOOD, "ordered": OrderedDict(GOOD)}.items():
            yield Case(f"A2 protocol {protocol} {form}", pickle.dumps(top, protocol), blobs=tuple(GOOD))
    old = pickle.dumps({"blobs": GOOD}, 2)
    yield Case("A4 numpy 1 module names", old.replace(b"numpy._core", b"numpy.core"), blobs=tuple(GOOD))
    yield Case("A4 numpy 2 module names", wrap(array()).replace(b"numpy.core", b"numpy._core"), blobs=("w", "z"))
    malformed = ("MalformedFile",)
    stray = {
        "6 wrong order": b"\x80\x02}b.",
        "6 empty stack": b"\x80\x02a.",
        "6 stop at once": b"\x80\x02.",
        "6 two values": b"\x80\x02}}.",
        "6 open mark": b"\x80\x02(}.",
        "6 tuple without mark": b"\x80\x02t.",
        "6 setitems without mark": b"\x80\x02}u.",
        "6 setitems odd": b"\x80\x02}(U\x01au.",
        "6 append to dict": b"\x80\x02}K\x01a.",
        "6 setitem on list": b"\x80\x02]U\x01aK\x01s.",
        "6 pop": b"\x80\x02}0.",
        "6 pop mark": b"\x80\x02(1}.",
        "6 dup": b"\x80\x02}2.",
        "6 set": b"\x80\x04\x8f.",
        "6 frozenset": b"\x80\x04(\x91.",
        "6 unknown opcode": b"\x80\x02\xff.",
        "6 two pickles": wrap(array()) * 2,
        "8 get of nothing": b"\x80\x02h\x05.",
        "8 get of text": b"\x80\x02gfive\n.",
        "8 get negative": b"\x80\x02g-1\n.",
        "8 put negative": b"\x80\x02}p-1\n.",
        "8 put 2^63": b"\x80\x02}p9223372036854775808\n.",
        "8 put on nothing": b"\x80\x02q\x00.",
        "8 long get": b"\x80\x02j\xff\xff\xff\xff.",
        "9 second PROTO": b"\x80\x02\x80\x02}.",
        "9 PROTO later": b"\x80\x02}\x80\x02.",
        "9 PROTO 0": b"\x80\x00" + wrap(array())[2:],
        "9 frame in frame": b"\x80\x04\x95" + struct.pack("<Q", 11) + b"\x95" + struct.pack("<Q", 1) + b"}.",
        "9 frame ends in opcode": b"\x80\x04\x95" + struct.pack("<Q", 4) + b"}X\x02\0\0\0ab.",
        "10 BINSTRING negative": b"\x80\x02T\xff\xff\xff\xffabc.",
        "10 LONG1 of 200 bytes": b"\x80\x02\x8a\xc8" + b"\1" * 200 + b".",
        "10 LONG4 negative": b"\x80\x02\x8b\xff\xff\xff\xff.",
        "10 INT of 200 digits": b"(dI" + b"9" * 200 + b"\n.",
        "10 INT is no number": b"(dI0x1f\n.",
        "10 FLOAT is no number": b"(dF1_0a\n.",
        "10 LONG with space": b"(dL 12L\n.",
        "10 STRING without quotes": b"(dSabc\n.",
        "10 line of 10 kB": b"(dI" + b"1" * 10000 + b"\n.",
        "12 cycle dict": b"\x80\x02}q\x00U\x01ah\x00s.",
        "12 cycle list": b"\x80\x02]q\x00h\x00a.",
        "13 key None": wrap(array(), b"N"),
        "13 key tuple": wrap(array(), b")"),
        "13 key list": wrap(array(), b"]"),
        "13 key int": wrap(array(), b"K\x07"),
        "13 key twice": wrap(array(), u(b"z")),
        "13 key True": wrap(array(), b"\x88"),
        "13 key empty": wrap(array(), u(b"")),
        "13 key NUL": wrap(array(), u(b"a\0b")),
        "13 key newline": wrap(array(), u(b"a\nb")),
        "13 key 10 MB": wrap(array(), u(b"k" * 10_000_000)),
        "13 key not UTF-8": wrap(array(), u(b"\xff\xfe")),
        "13 key array": wrap(array(), array()),
    }
    for name, content in stray.items():
        yield Case(f"A{name}", content, malformed)
    cut = {
        "6 no stop": b"\x80\x02}",
        "9 frame too long": b"\x80\x04\x95" + struct.pack("<Q", 2**63) + b"}.",
        "10 BINUNICODE8 2^63": b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"a.",
        "10 BINBYTES8 2^63": b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"a.",
        "10 BYTEARRAY8 2^63": b"\x80\x05\x96" + struct.pack("<Q", 2**63) + b"a.",
        "10 BINUNICODE 2^31": b"\x80\x02X\xff\xff\xff\x7fa.",
    }
    for name, content in cut.items():
        yield Case(f"A{name}", content, ("TruncatedFile",))
    yield Case("A9 PROTO 6", b"\x80\x06}.", ("MalformedFile", "WrongFormat"))
    yield Case("A9 PROTO 255", b"\x80\xff}.", ("MalformedFile", "WrongFormat"))
    yield Case("A13 key with path", wrap(array(), u(b"../../etc/passwd")), blobs=("../../etc/passwd", "z"))
    brace = b"\x80\x02}X\x01\0\0\0{" + array() + b"s."  # begins like a safetensors header, but for its length
    yield Case("A13 key brace", brace, blobs=("{",))
    yield Case("A13 key bytes", wrap(array(), b"C\x01b"), blobs=("b", "z"))
    over = ("OverBudget",)
    yield Case("A6 100,000 values", b"\x80\x02" + b"N" * 100_000 + b".", over)
    yield Case("A7 600,000 opcodes", b"\x80\x02}q\x00" + b"U\x01ah\x00" * 10 + b"]" + b"Na" * 300_000 + b".", over)
    yield Case(
        "A8 300,000 puts", b"\x80\x02}" + b"".join(b"r" + struct.pack("<I", i) for i in range(300_000)) + b".", over
    )
    yield Case("A8 put at 2^32-1", b"\x80\x02}r\xff\xff\xff\xff(" + u(b"z") + array() + b"u.", blobs=("z",))
    yield Case("A11 100,000 marks", b"\x80\x02" + b"(" * 100_000 + b".", over)
    for name, opcode in {"tuples": b"\x85", "lists": b"]q\x00(h\x00e"}.items():
        yield Case(f"A11 70,000 nested {name}", b"\x80\x02N" + opcode * 70_000 + b".", ("MalformedFile", "OverBudget"))
    yield Case(
        "A12 doubling tuples",
        b"\x80\x02)" + b"".join(b"q\x00h\x00h\x00\x86" for _ in range(2000)) + b".",
        ("MalformedFile", "OverBudget"),
    )
    # What piles up as many values as the opcodes allow, and holds on to them.
    for name, opcode in {"texts": b"U\x00", "lists": b"]", "floats": b"G" + b"\x11" * 8}.items():
        pile = b"\x80\x02]" + (b"(" + opcode * 9000 + b"e") * 22 + b"."
        yield Case(f"A7 a pile of {name}", pile, ("MalformedFile",))
    many = b"".join(u(b"n%d" % i) + b"h\x01" for i in range(20_000))
    yield Case(
        "A12 one array, 20000 names",
        b"\x80\x02}(" + u(b"w") + array(b"M\x00\x10\x85", u(b"\0" * 16384)) + b"q\x01" + many + b"u.",
        over,
    )


DANGEROUS = """os.system posix.system nt.system __builtin__.eval builtins.eval __builtin__.exec builtins.exec
builtins.getattr builtins.__import__ builtins.open __builtin__.file builtins.compile builtins.setattr
builtins.breakpoint
subprocess.Popen subprocess.check_output runpy._run_code runpy.run_path pty.spawn pip.main pip._internal.main
pydoc.pipepager imaplib.IMAP4_stream cProfile.run profile.run timeit.timeit code.InteractiveInterpreter ctypes.CDLL
importlib.import_module pkgutil.resolve_name functools.partial functools.reduce operator.attrgetter
operator.methodcaller operator.itemgetter logging.FileHandler _io.FileIO io.open urllib.request.urlopen
webbrowser.open distutils.spawn.spawn _pyrepl.pager.pipe_pager _osx_support._read_output
_aix_support._read_cmd_output uuid._get_command_stdout test.support.run_in_subinterp types.CodeType
types.FunctionType cloudpickle.loads dill.loads joblib.load torch.load torch._utils._rebuild_tensor_v2 torch.hub.load
torch.utils.bottleneck.__main__.run_cprofile numpy.f2py.crackfortran.getlincoef numpy.f2py.compile
numpy.testing._private.utils.runstring numpy.load numpy.memmap numpy.fromfile numpy.save
numpy.core.multiarray.fromfile numpy.core.multiarray.ndarray numpy.core.multiarray.frombuffer
numpy._core.multiarray.dtype numpy.ndarray.tofile numpy.core._reconstruct numpy.random._pickle.__randomstate_ctor
_codecs.decode codecs.encode _codecs.register copyreg._reconstructor copy_reg._reconstructor copyreg.add_extension
collections.Counter collections.namedtuple collections.defaultdict pickle.loads _pickle.loads cPickle.loads
marshal.loads shutil.rmtree socket.create_connection sys.exit threading.Thread asyncio.run ssl.get_server_certificate
yaml.unsafe_load detectron.utils.collections.AttrDict builtins.bytearray builtins.object""".split()


def code() -> Iterator[Case]:
    """B: everything that could import, call or build."""
    forbidden = ("ForbiddenContent",)
    command = f"touch {CANARY}".encode()
    for dotted in DANGEROUS:
        module, name = dotted.rsplit(".", 1)
        old = f"c{module}\n{name}\n".encode()
        new = x(module) + x(name) + b"\x93"
        inst = b"(" + u(command) + f"i{module}\n{name}\n".encode()
        calls = {
            "GLOBAL REDUCE": old + u(command) + b"\x85R",
            "STACK_GLOBAL REDUCE": new + x(command.decode()) + b"\x85R",
            "INST": inst,
            "OBJ": b"(" + old + u(command) + b"o",
            "NEWOBJ": old + u(command) + b"\x85\x81",
            "invisible": old + u(command) + b"\x85R0" + array(),
            "alone": old,
        }
        for form, call in calls.items():
            yield Case(f"B14 {dotted} {form}", wrap(call), forbidden)
    call = b"cos\nsystem\n" + u(command) + b"\x85R"
    for place in "before", "inside", "after":
        content = wrap(call) if place == "inside" else wrap(array(), **{place: call + b"."})
        yield Case(f"B17 payload {place}", content, ("MalformedFile",) if place == "after" else forbidden)
        yield Case(f"B17 payload {place}, cut", content[:-1], ("ForbiddenContent", "MalformedFile", "TruncatedFile"))
    special = {
        "15 memoised parts": x("os") + b"q\x01" + x("system") + b"q\x02\x93",
        "15 part is an int": b"K\x01" + x("system") + b"\x93",
        "15 part is bytes": b"C\x02os" + b"C\x06system\x93",
        "15 part is py2 str": u(b"numpy") + u(b"ndarray") + b"\x93",
        "15 dotted": x("numpy") + x("core.multiarray._reconstruct.__globals__") + b"\x93",
        "15 dotted known": x("numpy.core") + x("multiarray._reconstruct") + b"\x93",
        "15 cyrillic": x("num\u0440y") + x("ndarray") + b"\x93",
        "15 space": x("numpy ") + x("ndarray") + b"\x93",
        "15 newline": x("numpy\nndarray\ncos") + x("system") + b"\x93",
        "15 upper": b"cNumPy\nndarray\n",
        "15 empty": b"c\n\n",
        "15 attribute": b"cnumpy\ndtype.__class__\n",
        "16 NEWOBJ_EX": b"cos\nsystem\n)}\x92",
        "16 EXT1 empty": b"\x82\x01",
        "16 EXT2": b"\x83\x01\x01",
        "16 EXT4": b"\x84\x01\x01\x01\x01",
        "16 EXT1 registered": b"\x82\xf0",
        "16 PERSID": b"Pabc\n",
        "16 BINPERSID": u(b"abc") + b"Q",
        "16 NEXT_BUFFER": b"\x97",
        "16 READONLY_BUFFER": b"\x97\x98",
        "16 REDUCE on a text": u(b"os") + b")R",
        "16 REDUCE on a dict": b"})R",
        "16 REDUCE with a list": b"cnumpy\ndtype\n]R",
        "16 BUILD with setstate": b"cnumpy\nndarray\n}" + u(b"__setstate__") + b"cnumpy\ndtype\nsb",
        "16 BUILD on a dict": b"}}b",
        "16 BUILD on None": b"N}b",
        "16 BUILD slots": array() + b"N}\x86b",
        "16 BUILD twice": array() + b"(K\x01K\x02\x85" + dtype() + b"\x89" + u(b"\0" * 8) + b"tb",
        "16 ndarray called": b"cnumpy\nndarray\nM\xff\xff\x85\x85R",
        "16 bytes of 10^9": b"cbuiltins\nbytes\nJ\0\xca\x9a\x3b\x85R",
        "16 encode rot13": b"c_codecs\nencode\n" + x("abc") + x("rot13") + b"\x86R",
        "16 encode zip bomb": b"c_codecs\nencode\n" + x("abc") + x("zlib_codec") + b"\x86R",
        "16 _reconstruct of dtype": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85U\x01b\x87R",
        "16 _reconstruct of 10^9": RECONSTRUCT.replace(b"K\x00", b"J\0\xca\x9a\x3b"),
        "16 OrderedDict of a call": b"ccollections\nOrderedDict\n" + call + b"\x85R",
    }
    for name, payload in special.items():
        yield Case(f"B{name}", wrap(payload), forbidden)
    yield Case("B16 symbol as blob", wrap(b"cnumpy\nndarray\n"), blobs=("z",))


def arrays() -> Iterator[Case]:
    """C: what an array may be."""
    unsupported = ("UnsupportedArray",)
    shapes = {
        "10^12": integer(10**12) + b"\x85",
        "10^12 squared": integer(10**12) * 2 + b"\x86",
        "2^63": integer(2**63) + b"\x85",
        "negative": b"J\xff\xff\xff\xff\x85",
        "two negatives": b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86",
        "bool": b"\x88\x85",
        "float": b"G" + struct.pack(">d", 2.0) + b"\x85",
        "None": b"N",
        "int": b"K\x02",
        "list": b"](K\x02e",
        "text": u(b"2") + b"\x85",
        "33 dimensions": b"(" + b"K\x01" * 32 + b"K\x02t",
        "overflow to 8 bytes": integer(2**62) + integer(2**62) + b"\x86",
        "too short": b"K\x01\x85",
        "too long": b"K\x03\x85",
        "zero times huge": b"K\x00" + integer(2**62) + integer(8) + b"\x87",
    }
    for name, shape in shapes.items():
        yield Case(f"C19 shape {name}", wrap(array(shape)), unsupported)
    codes = "O O8 V8 S4 U2 M8 m8 c8 c16 f16 g f3 i3 f b O4 b4 u16 f4,f4 (2,)f4 f4\x00 \u0661 datetime64[ns]".split(" ")
    for element in codes:
        yield Case(f"C21 dtype {ascii(element)}", wrap(array(element=dtype(element.encode()))), unsupported)
    states = {
        "order garbage": b"(K\x03U\x01xNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
        "version 4": b"(K\x04U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00Nt",
        "subarray": b"(K\x03U\x01<cnumpy\ndtype\nK\x02\x86NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
        "fields": b"(K\x03U\x01<NU\x01f\x85}J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t",
        "aligned": b"(K\x03U\x01<NNNK\x08K\x08K\x80t",
        "object flag": b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ft",
        "dict": b"}",
        "metadata": b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00}t",
    }
    for name, state in states.items():
        yield Case(f"C21 dtype state {name}", wrap(array(element=dtype(state=state))), unsupported)
    contents = {"None": b"N", "a list of objects": b"](cos\nsystem\ne", "unicode": x("\0" * 8), "a number": b"K\x01"}
    for name, content in contents.items():
        yield Case(f"C21 content {name}", wrap(array(data=content)), ("UnsupportedArray", "ForbiddenContent"))
    encoded = b"c_codecs\nencode\n" + x("\0" * 7 + "\u0416") + x("latin1") + b"\x86R"
    yield Case("C20 content beyond latin1", wrap(array(data=encoded)), ("MalformedFile", "UnsupportedArray"))
    short = b"c_codecs\nencode\n" + x("\u00ff" * 7) + x("latin1") + b"\x86R"
    yield Case("C20 encoded content short", wrap(array(data=short)), unsupported)
    long = b"c_codecs\nencode\n" + x("\u00ff" * 9) + x("latin1") + b"\x86R"
    yield Case("C20 encoded content long", wrap(array(data=long)), unsupported)
    yield Case(
        "C20 strange escape",
        b"(d" + b"S'w'\n" + array(data=b"S'\\q0000000'\n") + b"s.",
        ("MalformedFile", "UnsupportedArray"),
    )
    yield Case("C19 array version 2", wrap(array(version=b"K\x02")), ("ForbiddenContent",))
    yield Case("C19 never built", wrap(RECONSTRUCT), ("MalformedFile",))
    good = {
        "0-d": np.array(2.5, "f4"),
        "empty": np.zeros((0, 3), "f4"),
        "Fortran": np.asfortranarray(GOOD["conv1_w"]),
        "big-endian": GOOD["conv1_w"].astype(">f4"),
        "f2": np.ones(3, "f2"),
        "f8": np.ones(3),
        "i8": np.arange(3),
        "b1": np.array([True, False]),
        "NaN": np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], "f4"),
        "scalar": np.float32(1.5),
    }
    for name, value in good.items():
        for protocol in 0, 2, 5:
            yield Case(f"C20 {name} protocol {protocol}", pickle.dumps({"w": value}, protocol), blobs=("w",))
    for name, other in {"None": None, "float": 1.5, "dict": {"a": 1}, "text": "abc", "list": [1, [2]]}.items():
        yield Case(
            f"C23 {name} among blobs", pickle.dumps({"blobs": {"w": GOOD["conv1_w"], "n": other}}, 2), blobs=("w",)
        )


def damaged() -> Iterator[Case]:
    """Truncation at every byte of a small file of each kind; seeded bit flips. Any of our errors, or a read."""
    from detectron_gn.weights.formats import (  # the writers make the files that are then damaged
        WeightsFile,
        write_blobs,
    )

    kinds = ("TruncatedFile", "MalformedFile", "ForbiddenContent", "OverBudget", "UnsupportedArray", "WrongFormat")
    chance = random.Random(20180416)

    def of(suffix: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        def write(path: Path) -> None:
            write_blobs(path, WeightsFile(GOOD, CFG, 7, "x", "pkl"))
            path.write_bytes(change(path.read_bytes()))

        return write

    size = {".pkl": 280, ".pth": 1600, ".safetensors": 300, ".h5": 3200}
    step = {".pkl": 1, ".pth": 9, ".safetensors": 3, ".h5": 21}
    for suffix in size:
        for cut in range(1, size[suffix], step[suffix]):
            yield Case(f"A5 {suffix} cut by {cut}", of(suffix, lambda data, cut=cut: data[:-cut]), kinds, suffix=suffix)
        for flip in range(60):
            place = chance.random()
            bit = 1 << chance.randrange(8)
            yield Case(
                f"A5 {suffix} flip {flip}",
                of(suffix, lambda d, p=place, b=bit: _flip(d, p, b)),
                ("any", *kinds),
                suffix=suffix,
            )


def _flip(data: bytes, place: float, bit: int) -> bytes:
    at = int(place * len(data))
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def meaning() -> Iterator[Case]:
    """E: files whose structure is sound."""
    names = ["conv1_w_momentum", "__preserve__/x", "pred_w", "pred_b", "_[mask]_fcn1_w", "fc6_w"]
    blobs = dict.fromkeys(names, GOOD["conv1_w"])
    yield Case(
        "E30 all kinds of names",
        pickle.dumps({"blobs": {n: a.copy() for n, a in blobs.items()}}, 2),
        blobs=tuple(names),
    )
    yield Case("E31 no blobs key", pickle.dumps(GOOD, 2), blobs=tuple(GOOD))
    yield Case("E31 bytes keys", pickle.dumps({b"blobs": {b"w": GOOD["conv1_w"]}, b"cfg": b"a: 1"}, 3), blobs=("w",))
    yield Case("E31 nothing in blobs", pickle.dumps({"blobs": {}}, 2), ("MalformedFile",))
    yield Case("E31 blobs is a list", pickle.dumps({"blobs": [GOOD["conv1_w"]]}, 2), ("MalformedFile",))
    yield Case("E31 detectron2 file", pickle.dumps({"model": GOOD, "__author__": "x"}, 2), blobs=tuple(GOOD))


def all_cases() -> list[Case]:
    """Every case; the names are unique."""
    cases = [*structure(), *code(), *arrays(), *formats(), *damaged(), *meaning()]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def write_all(folder: Path) -> list[tuple[Case, Path]]:
    """Write every case into `folder`."""
    written = []
    for number, case in enumerate(all_cases()):
        path = folder / f"case{number}{case.suffix}"
        if isinstance(case.content, bytes):
            path.write_bytes(case.content)
        else:
            case.content(path)
        written.append((case, path))
    return written
