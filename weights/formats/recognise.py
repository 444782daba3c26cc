"""What a file is by its first bytes, never by its name: the signature of each format, and what is no weights file."""

from __future__ import annotations

import re
from typing import NoReturn

from detectron_gn.weights.errors import WrongFormat
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.formats.zip_members import zip_members

_HEAD = 1024
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""A pickle of the number with which PyTorch before 1.6 began its files."""

_MADE_FROM = "give the weights file that it was made from"
_OTHER = [
    (b"\x1f\x8b", "is gzip-compressed; unpack it with gunzip first"),
    (b"\xfd7zXZ\x00", "is xz-compressed; unpack it with unxz first"),
    (b"BZh", "is bzip2-compressed; unpack it with bunzip2 first"),
    (b"\x28\xb5\x2f\xfd", "is zstd-compressed; unpack it with unzstd first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it first"),
    (b"\x93NUMPY", "is a single numpy array (.npy), not a weights file"),
    (b"\x89PNG", "is a PNG picture, not a weights file"),
    (b"\xff\xd8\xff", "is a JPEG picture, not a weights file"),
    (b"\x7fELF", "is a program, not a weights file"),
    (b"PK\x05\x06", "is an empty zip archive"),
    (b"ftrt", f"is a TensorRT engine, which TensorRT runs; {_MADE_FROM}"),
    (b"GGUF", "is a GGUF file of a language model, not a weights file"),
    (_LEGACY_TORCH, "is in PyTorch's format from before 1.6; load it with torch and torch.save it again"),
]
_TEXTS = [
    (rb"version https://git-lfs", "is a git-LFS pointer, not the file itself; run `git lfs pull`"),
    (rb"(<\?xml.*)?<Error>.*AccessDenied|<Code>AccessDenied", "is an XML error page (AccessDenied) that a "
     "server sent instead of the file; download it again"),
    (rb"<!doctype html|<html|<head|<body", "is an HTML page that a server sent instead of the file; download "
     "it again"),
    (rb"<\?xml[^>]*>\s*<net ", f"is an OpenVINO network, which OpenVINO runs; {_MADE_FROM}"),
    (rb"<\?xml|<Error>", "is an XML page that a server sent instead of the file; download it again"),
    (rb"[0-9a-f]{32}(\s|$)", "is the text of an md5 sum, not the file it belongs to"),
    (rb"[{\[]\s*[\"{\[\]}\d]", "is JSON, not a weights file"),
]  # fmt: skip


_PROTOBUFS = [
    # The number of a version, then the producer's name, the graph or the operators.
    (rb"\x08[\x01-\x1f](\x12[\x01-\x7f][\x20-\x7e]|[\x1a\x22\x28\x3a\x42])",
     f"is an ONNX network, which onnxruntime runs; {_MADE_FROM}"),
    (rb"\x08\x01\x12[\x80-\xff]+[\x00-\x7f]\x0a", f"is a SavedModel, which TensorFlow runs; {_MADE_FROM}"),
    # The name of a network, then its layers or operators.
    (rb"\x0a[\x01-\x7f][\x20-\x7e]+[\x12\x1a\xa2]",
     "is a network of Caffe or Caffe2; of a .caffemodel, Detectron's tools/pickle_caffe_blobs.py makes a .pkl that is "
     "read here"),
    (rb"....TFL3", f"is a TensorFlow Lite network, which its interpreter runs; {_MADE_FROM}"),
]  # fmt: skip


def is_hdf5(file: MappedFile) -> bool:
    """Whether it begins with the signature of HDF5."""
    return file.map[:8] == b"\x89HDF\r\n\x1a\n"


def is_safetensors(file: MappedFile) -> bool:
    """Whether it begins with the length of a JSON header, below 4 GiB, and that header's brace."""
    return file.map[4:9] == b"\0\0\0\0{"


def is_pickle(file: MappedFile) -> bool:
    """Whether it begins as a pickle of protocol 0 to 5 does.

    The length with which a safetensors file begins may look like the opcode PROTO.
    """
    start = re.match(rb"\x80[\x00-\x05]|\(d|\}|\(?l|\]|c[\w.]+\n\w+\n", file.map[:_HEAD])
    return start is not None and not is_safetensors(file)


def is_torch(file: MappedFile) -> bool:
    """Whether it is a zip archive with a `data.pkl`, as `torch.save` writes it.

    Raises WrongFormat for another zip archive: those of numpy and TorchScript are some too. Raises what `zip_members`
    raises for a damaged one.
    """
    if file.map[:4] != b"PK\x03\x04":
        return False
    names = [member.filename.rsplit("/", 1)[-1] for member in zip_members(file)]
    if "constants.pkl" in names and "data.pkl" in names:
        raise WrongFormat(file.source, f"is a TorchScript archive, which torch.jit.load runs; {_MADE_FROM}")
    if "data.pkl" in names:
        return True
    if names and all(name.endswith(".npy") for name in names):
        raise WrongFormat(file.source, "is an archive of numpy arrays (.npz), not a weights file")
    if "archive_format" in names or "serialized_exported_program.json" in names:
        raise WrongFormat(file.source, f"is a program of torch.export, which torch.export.load runs; {_MADE_FROM}")
    if "model.weights.h5" in names:
        raise WrongFormat(file.source, "is a model of Keras, whose layers cannot be taken over; give Detectron's file")
    raise WrongFormat(file.source, "is a zip archive without PyTorch's data.pkl; unpack it first")


def refuse_other_signatures(file: MappedFile) -> None:
    """Raise WrongFormat, saying what the file is, where it begins with the signature of something else."""
    for magic, cause in _OTHER:
        if file.map[: len(magic)] == magic:
            raise WrongFormat(file.source, cause)


def refuse_unrecognised(file: MappedFile) -> NoReturn:
    """Raise WrongFormat with what a file without any known signature looks like."""
    head = file.map[:_HEAD]
    if head[257:262] == b"ustar":
        raise WrongFormat(file.source, "is a tar archive; unpack it first")
    for pattern, cause in _PROTOBUFS:
        if re.match(pattern, head, re.DOTALL):
            raise WrongFormat(file.source, cause)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, cause in _TEXTS:
        if re.match(pattern, text, re.IGNORECASE | re.DOTALL):
            raise WrongFormat(file.source, cause)
    if not head.strip(b"\x00"):
        raise WrongFormat(file.source, "begins with zeros only; it was never written, fetch it again")
    if all(0x20 <= byte < 0x7F or byte in b"\t\n\r" for byte in head):
        raise WrongFormat(file.source, f"is a text ({ascii(head[:40])[1:]}), not a weights file")
    beginning = head[:8].hex(" ")
    raise WrongFormat(
        file.source, f"is no Detectron pickle, HDF5, safetensors or PyTorch file (it begins with {beginning})"
    )
