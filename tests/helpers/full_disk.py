"""Writes weights files where files may have no more than so many bytes, as on a full disk.

Usage: python -m tests.helpers.full_disk FOLDER SUFFIX; prints one JSON object: {"sizes": how many limits, "refused":
how many ended in WriteFailed, "left": what lay in the folder afterwards, "sentence": of the last}. A process of its
own, since the limit holds for everything it does, and a segmentation fault ends it.
"""

import json
import random
import resource
import sys
from pathlib import Path

import numpy as np

from detectron_gn.weights import WeightsFile, write_blobs
from detectron_gn.weights.errors import WriteFailed


def main(folder: Path, suffix: str) -> None:
    blobs = {f"res{number}_w": np.ones((100, number + 1), "f4") for number in range(30)}
    weights = WeightsFile(blobs, "MODEL:\n  TYPE: generalized_rcnn\n", 7, "model_final.pkl", "pkl")
    path = folder / f"m{suffix}"
    write_blobs(path, weights)
    whole = path.stat().st_size
    path.unlink()
    chance = random.Random(0)
    sizes = [0, 1, 100, 2048, 4096, 8192, *(chance.randrange(whole) for _ in range(12)), whole - 1]
    refused, left, sentence = 0, [], ""
    for size in sizes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            write_blobs(path, weights)
        except WriteFailed as error:
            refused, sentence = refused + 1, str(error)
        left += [found.name for found in folder.iterdir()]
    print(json.dumps({"sizes": len(sizes), "refused": refused, "left": left, "sentence": sentence}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
