"""Large annotation files are read once, and kept as arrays that all processes of a machine share."""

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from filelock import Timeout

from detectron_gn.mrcnn.data.annotations.reader import Instances, read_instances
from detectron_gn.mrcnn.data.annotations.stored import FORM, store_instances, stored_instances
from detectron_gn.weights.files.atomic import sync
from detectron_gn.weights.files.digest import file_digest
from detectron_gn.weights.files.lock import locked

# A smaller file is read in a second.
SMALLEST = 2**26


def read_instances_once(path: Path, cache: Path, say: Callable[[str], None]) -> Instances:
    """An annotation file as the one reader reads it; from the folder `cache` where its content was read before.

    What is kept goes by the hash of the file, so that a changed file is never taken for another. The first process
    that asks reads and keeps it, and others wait for that. Small files, and those with faults, are not kept. Where the
    first one could not keep it, those that waited read it for themselves, all at once.

    Args:
        say: prints a line.

    Raises InputError as `read_instances` does. A disk that cannot keep it is no reason not to train.
    """
    if not path.is_file() or path.stat().st_size < SMALLEST:
        return read_instances(path)
    try:
        digest = file_digest(path)
        folder = _folder(cache, digest)
        # What is whole needs no lock, which a disk that is read only has not.
        found = stored_instances(folder, path, digest)
        if found is None:
            cache.mkdir(parents=True, exist_ok=True)
            lock = folder.with_suffix(".lock")
            try:
                with locked(lock, wait=False):
                    return stored_instances(folder, path, digest) or _read_and_kept(path, cache, say)
            except Timeout:
                with locked(lock):
                    found = stored_instances(folder, path, digest)
        return found or read_instances(path)
    except OSError as error:
        say(_told_unkept(path, cache, error))
        return read_instances(path)


def _read_and_kept(path: Path, cache: Path, say: Callable[[str], None]) -> Instances:
    """Read the file, and keep it where the disk can; to be called under the lock."""
    say(f"{path}: reading it")
    read = read_instances(path)
    if read.digest is None or read.faults:
        return read
    # By what was read: another file may have taken the name meanwhile.
    folder = _folder(cache, read.digest)
    try:
        _keep(read, folder)
    except OSError as error:
        say(_told_unkept(path, cache, error))
        return read
    say(f"{path}: read once, and kept in {cache}")
    return stored_instances(folder, path, read.digest) or read


def _told_unkept(path: Path, cache: Path, error: OSError) -> str:
    return f"{path} is read by each process, each time: {cache} cannot keep it ({error.strerror or error})"


def _folder(cache: Path, digest: str) -> Path:
    return cache / f"{digest}-{FORM}"


def _keep(instances: Instances, folder: Path) -> None:
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        # Of a process that was killed: nobody else is here.
        shutil.rmtree(left, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        store_instances(instances, temporary)
        for path in temporary.iterdir():
            sync(path)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
