"""Where `detect` puts what it makes of each input: named after it, and in the folders that the input lies in."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from detectron_gn.port.runs.image_inputs import common_folder, is_video, named_files

PICTURE, MASKS, OVERLAY, FRAMES = "_detections.png", "_masks.png", "_detections.webm", "_detections.jsonl"
# COCO's list of what was found in all images.
COCO_LIST = "detections.json"
# What of it has the suffix of an input: it is none.
WRITTEN = (PICTURE, MASKS, OVERLAY, "_detections.part.webm")


class OutputPaths:
    """The paths of pictures, masks and videos.

    What is made of `photo.jpg` begins with its whole name, `photo.jpg_detections.png`, so that `photo.png` beside it
    has its own. Of a file that the command line names itself it is in `out`; of several of one name it is in the
    folders that tell them apart.

    Of what a folder, a pattern or a list brings it is in `out/pictures`, `out/masks` and `out/videos`, in folders as
    below the deepest one that holds all of these inputs.

    Args:
        inputs: of the command line.
        out: the folder of the run.
    """

    def __init__(self, inputs: Sequence[Path], out: Path) -> None:
        self._out = out
        self._named = _named_bases(named_files(inputs), out)
        self._common = common_folder(inputs)

    def is_named(self, path: Path) -> bool:
        """Whether the command line names this file itself."""
        return os.path.abspath(path) in self._named

    def picture(self, path: Path) -> Path:
        """The picture of an image with what was found in it."""
        return self._base(path, "pictures", PICTURE)

    def masks(self, path: Path) -> Path:
        """The picture of masks of an image."""
        return self._base(path, "masks", MASKS)

    def overlay(self, path: Path) -> Path:
        """The video with what was found in a video."""
        return self._base(path, "videos", OVERLAY)

    def frames(self, path: Path) -> Path:
        """The JSON lines of a video's frames."""
        return self._base(path, "videos", FRAMES)

    def masks_of_frames(self, path: Path) -> Path:
        """The folder for the pictures of masks of a video's frames."""
        return self._base(path, "videos", "_masks")

    def files(self, path: Path) -> list[Path]:
        """The files that may be made of an image or a video."""
        made = (self.overlay, self.frames) if is_video(path) else (self.picture, self.masks)
        return [name(path) for name in made]

    def _base(self, path: Path, folder: str, ending: str) -> Path:
        absolute = os.path.abspath(path)
        base = self._named.get(absolute)
        if base is None:
            parent, name = os.path.split(absolute)
            below = os.path.relpath(parent, self._common) if self._common else ""
            if not below or below.startswith(os.pardir):
                below = os.path.relpath(parent, Path(parent).anchor)
            base = self._out / folder / below / name
        return base.with_name(base.name + ending)


def _named_bases(paths: Sequence[Path], out: Path) -> dict[str, Path]:
    """What the files that are made of each named file begin with, by its absolute path."""
    of_name: dict[str, list[str]] = defaultdict(list)
    absolute = list(dict.fromkeys(os.path.abspath(path) for path in paths))
    for path in absolute:
        # Some disks take A.jpg and a.jpg for one name.
        of_name[os.path.basename(path).casefold()].append(path)
    bases: dict[str, Path] = {}
    for files in of_name.values():
        common = os.path.commonpath(list(map(os.path.dirname, files)))
        bases |= {path: out / os.path.relpath(path, common) for path in files}
    if len({str(base).casefold() for base in bases.values()}) < len(bases):  # A.jpg and a.jpg of one folder
        bases = {path: out / f"{number}_{Path(path).name}" for number, path in enumerate(absolute, 1)}
    return bases
