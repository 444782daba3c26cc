"""Reads the whole hostile corpus in this process with an audit hook that ends it at the first forbidden deed.

Usage: python -m tests.helpers.run_corpus FOLDER; prints one JSON object: {"outcomes": {case: [outcome, blob
names, seconds, bytes that the peak of the resident memory grew, bytes of the file]}, "violations": [...]}.
"""

import contextlib
import copyreg
import json
import os
import sys
import time
from pathlib import Path

from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.formats import read_blobs
from tests.helpers import hostile_corpus

FORBIDDEN = {
    "import", "exec", "compile", "marshal.loads", "pickle.find_class", "code.__new__", "function.__new__",
    "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn",
    "ctypes.dlopen", "ctypes.dlsym", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate",
    "os.link", "os.symlink", "shutil.rmtree", "os.putenv", "webbrowser.open", "urllib.Request",
}  # fmt: skip


def main(folder: Path) -> None:
    cases = hostile_corpus.write_all(folder)
    copyreg.add_extension("os", "system", 0xF0)
    for case, path in cases:  # everything that reading imports is imported before the hook is set
        if case.blobs:
            with contextlib.suppress(Exception):
                read_blobs(path)
    violations: list[str] = []
    armed = [False]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if not armed[0]:
            return
        writes = event == "open" and (
            (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"))
            or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        )
        elsewhere = event == "open" and not str(arguments[0]).startswith(str(folder))
        if event in FORBIDDEN or event.startswith("socket.") or writes or elsewhere:
            violations.append(f"{event} {arguments!r}"[:200])
            raise SystemError("forbidden")

    sys.addaudithook(hook)
    outcomes = {}
    for case, path in cases:
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")  # the peak begins anew
        before = resident()["VmRSS"]
        start = time.perf_counter()
        names: list[str] = []
        armed[0] = True
        try:
            names = list(read_blobs(path).blobs)
            outcome = "read"
        except WeightsError as error:
            outcome = type(error).__name__
            if str(path) not in str(error) or "\n" in str(error) or len(str(error)) > 600:
                outcome = f"bad sentence: {error}"
        except BaseException as error:
            outcome = f"unexpected {type(error).__name__}: {error}"
        armed[0] = False
        seconds = time.perf_counter() - start
        grown = resident()["VmHWM"] - before
        outcomes[case.name] = [outcome, names, seconds, grown, path.stat().st_size]
    print(json.dumps({"outcomes": outcomes, "violations": violations}))


def resident() -> dict[str, int]:
    """VmRSS and VmHWM, now and at most, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
