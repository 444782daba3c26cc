"""The front door: `detectron-gn COMMAND ...` and `detectron_gn.load()`, which dispatch to the rooms."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

if not os.path.isdir(os.path.join(__path__[0], "mrcnn")):
    # A checkout, where the rooms stand beside this folder: it runs from its root without being installed, too.
    __path__.append(os.path.dirname(__path__[0]))

from detectron_gn.completion import add_completion, complete_and_leave
from detectron_gn.forgiving_parser import BAD_INPUT, ForgivingParser
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.stopping import Stopped, breaking_off
from detectron_gn.port import cli as port_commands
from detectron_gn.port import convert_cli as convert_command
from detectron_gn.port import detect_cli as detect_command
from detectron_gn.verify import cli as verify_commands
from detectron_gn.weights import cli as weights_commands
from detectron_gn.weights.command_line import (
    DONE,
    Commands,
    HelpFormatter,
    check_json_option,
    check_outputs,
    json_alone,
)
from detectron_gn.weights.errors import NotObtained, WeightsError
from detectron_gn.weights.shown import ShownStream, one_line

if TYPE_CHECKING:
    from detectron_gn.mrcnn.detectors import Detector
    from detectron_gn.mrcnn.precision import Precision

# setup.py reads it here.
__version__ = "0.2.0"

BROKEN_PIPE = 141  # what a shell reports for SIGPIPE; for the signals that stop a command see mrcnn/stopping.py
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What Python, the loader of libraries, torch and OpenCV say where a limit or the machine itself is reached.
_NO_MEMORY = (
    "failed to map segment", "allocate memory", "out of memory", "Insufficient memory", "bad_alloc",
    "could not create a primitive", "start new thread",
)


def load(
    source: str | Path,
    *,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: Precision = "fp32",
    keep_unused: bool = False,
    classes: Sequence[str] | None = None,
) -> Detector:
    """A model ready to detect: `load("model_final.pkl").detect(image)`.

    Args:
        source: a model id of the catalog, its URL, or a file (`.pkl .h5 .safetensors .pth`).
        config: a Detectron YAML file, or the name of one in `yaml_configs/`. Where it is left out the configuration
            inside the file counts, or else the catalog's.
        overrides: `["TEST.NMS", "0.3", ...]`, as on Detectron's command line.
        device: where it runs, as torch names it; "auto" is the first GPU, or the CPU where there is none.
        precision: of convolutions and matrix products: "fp32", or "tf32", "bf16" or "fp16", which change results
            slightly (docs/precision.md).
        keep_unused: load the model although the file has trained blobs that the configuration has no place for.
        classes: names of classes 1, 2, ... instead of those in the file; `model.classes` gives them, the background
            first.

    Raises `weights.errors.WeightsError` or `mrcnn.errors.InputError`, both ValueErrors, with one sentence.
    """
    from detectron_gn.port.runs.load import load_model

    return load_model(source, config, overrides, device, precision, keep_unused=keep_unused, classes=classes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 a check did not hold, 2 bad input, 128 + n for signal n."""
    with _shown_output() as is_open:
        return _run(arguments) if is_open else BAD_INPUT


def _run(arguments: Sequence[str] | None) -> int:
    _silence_opencv()
    try:
        try:
            with breaking_off():
                arguments = sys.argv[1:] if arguments is None else arguments
                parser = _parser()
                complete_and_leave(parser)
                if not arguments:
                    parser.print_help()
                    return DONE
                args = parser.parse_args(arguments, argparse.Namespace(arguments=arguments))
                cast(ShownStream, sys.stderr).is_quiet = args.quiet
                check_json_option(args)
                check_outputs(args)
                with json_alone(args):
                    code: int = args.run(args)
        finally:
            # Here, and not at the interpreter's end, where a full disk could no longer be told in a sentence.
            sys.stdout.flush()
        return code
    except KeyboardInterrupt as interrupt:
        stopped = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
        print(f"detectron-gn: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except BrokenPipeError:
        # Whoever read the output has gone.
        _drop_output()
        return BROKEN_PIPE
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            _tell_other_processes()
            raise
        try:
            sys.stdout.flush()
        except OSError:
            _drop_output()
        lines = error.lines if isinstance(error, NotObtained) else [sentence]
        print("detectron-gn: error: " + "\n".join(map(one_line, lines)), file=sys.stderr)
        _tell_other_processes()
        return BAD_INPUT


def _tell_other_processes() -> None:
    """Under torchrun others may wait for this process, on machines whose torchrun does not see that it ends."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from detectron_gn.mrcnn.distributed import tell_failure

        sys.stderr.flush()
        tell_failure()


@contextmanager
def _shown_output() -> Iterator[bool]:
    """Print through ShownStreams meanwhile; yields False, and says so, where standard output is closed."""
    is_open = sys.stdout is not None
    # A file that is opened later must not get the number of a closed stream, and with it what libraries print.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    stdout, stderr = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        sys.stdout = cast(TextIO, ShownStream(stdout or nowhere))
        sys.stderr = cast(TextIO, ShownStream(stderr or nowhere))
        try:
            if not is_open:
                sentence = "the output cannot be written: standard output is closed; send it to a file or to /dev/null"
                print(f"detectron-gn: error: {sentence}", file=sys.stderr)
            yield is_open
        finally:
            sys.stdout, sys.stderr = stdout, stderr


def _silence_opencv() -> None:
    """Keep OpenCV's own lines, which name no file, to itself; what is wrong with an image is told by the reader."""
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")


def _drop_output() -> None:
    """Send what is not written yet nowhere: the interpreter must not try to flush it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    """The command line; rooms and libraries are imported by the command that runs, so that --help is there at once."""
    parser = ForgivingParser(
        prog="detectron-gn",
        formatter_class=HelpFormatter,
        description="The models of Caffe2 Detectron, exactly, in PyTorch: Mask, Faster, Fast and Keypoint R-CNN, "
        "RetinaNet and RPN, with Group Normalization or frozen BatchNorm, with a feature pyramid or C4.",
        epilog="Exit codes: 0 done, 1 a check did not hold, 2 bad input, 128 + n stopped by signal n. "
        "`detectron-gn COMMAND --help` has examples.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"detectron-gn {__version__}")
    commands = Commands(parser, metavar="COMMAND")
    for room in (weights_commands, convert_command, detect_command, port_commands, verify_commands):
        room.add_commands(commands)
    add_completion(commands)
    return parser


def _sentence(error: Exception) -> str | None:
    """What is wrong with the user's input or machine, or None for an error that is the program's own."""
    if isinstance(error, InputError | WeightsError):
        return str(error)
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        said = f" ({str(error).splitlines()[0]})" if str(error) else ""
        return (
            f"there is not enough memory, or no thread is left{said}: take fewer or smaller images at once, or raise "
            "the limits of this shell (ulimit -v, ulimit -u) or container"
        )
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"too many files are open: raise the limit (ulimit -n){f'; {error.filename}' if error.filename else ''}"
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if error.errno in _NO_ROOM:
        return f"the output cannot be written: {error.strerror}; make room, or send it elsewhere"
    if "temporary directory" in str(error):
        return "there is no folder for temporary files: let TMPDIR name one that can be written to"
    return f"the system refuses to read or write: {error.strerror or error}"
