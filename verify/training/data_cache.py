"""Large annotation files are read once, and kept as arrays that all processes of a machine share."""

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

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
    that asks reads and keeps it, and others wait for that. Small files, and those with faults, are not kept.

    Args:
        say: prints a line.

    Raises InputError as `read_instances` does. A disk that cannot keep it is no reason not to train.
    """
    if not path.is_file() or path.stat().st_size < SMALLEST:
        return read_instances(path)
    try:
        digest = file_digest(path)
        # What is whole needs no lock, which a disk that is read only has not.
        found = stored_instances(_folder(cache, digest), path, digest)
        if found is None:
            cache.mkdir(parents=True, exist_ok=True)
            with locked(_folder(cache, digest).with_suffix(".lock")):
                found = stored_instances(_folder(cache, digest), path, digest)
                if found is None:
                    say(f"{path}: read once, and kept in {cache}")
                    found = read_instances(path)
                    # By what was read: another file may have taken the name meanwhile.
                    if found.digest is not None and not found.faults:
                        _keep(found, _folder(cache, found.digest))
                        found = stored_instances(_folder(cache, found.digest), path, found.digest) or found
        return found
    except OSError as error:
        say(f"{path} is read again each time: {cache} cannot keep it ({error.strerror or error})")
        return read_instances(path)


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
