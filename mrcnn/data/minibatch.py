"""Which images make a minibatch, and the minibatch itself; answers to Detectron roi_data/loader.py and minibatch.py.

Everything random is a function of the seed and of the minibatch's number. A run can therefore continue anywhere, and
ranks can share the work without messages: the n-th minibatch is the same, whichever process loads it.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.image_blob import image_blob, prepare_image
from detectron_gn.mrcnn.data.image_files import read_image
from detectron_gn.mrcnn.data.roidb import GroundTruth, RoidbEntry
from detectron_gn.mrcnn.data.segms import flip_segm
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.boxes import flip_boxes
from detectron_gn.mrcnn.ops.proposals import ImInfo

# What the random numbers of a (seed, purpose, number) are for.
_ORDER, _SCALE, _SAMPLING = range(3)


@dataclass
class Minibatch:
    """The images of one GPU and iteration.

    Attributes:
        number: the n-th minibatch of the run, from 0.
        data: `[N, 3, H, W]` float32, prepared and padded.
        im_info: of each image the *scaled*, not the padded, size and the scale
            (Detectron roi_data/rpn.py:add_rpn_blobs).
        ground_truth: of each image, in pixels of the image on disk, mirrored where the entry is.
        names: the image files, for messages.
    """

    number: int
    data: Tensor
    im_info: list[ImInfo]
    ground_truth: list[GroundTruth]
    names: list[str]

    def pin_memory(self) -> "Minibatch":
        """Page-locked, so that the copy to a GPU can overlap (DataLoader calls this)."""
        self.data = self.data.pin_memory()
        return self


def mirror(objects: GroundTruth, width: int) -> GroundTruth:
    """The ground truth of the mirrored image, `width` pixels wide."""
    boxes = flip_boxes(torch.from_numpy(objects.boxes), width).numpy()
    return objects._replace(boxes=boxes, segms=tuple(flip_segm(segm, width) for segm in objects.segms))


def load_minibatch(entries: Sequence[RoidbEntry], sizes: Sequence[int], cfg: Config, number: int = 0) -> Minibatch:
    """Read, mirror, scale and stack images.

    Args:
        entries: the images.
        sizes: the length of the short side of each, one of `cfg.TRAIN.SCALES`.

    Raises InputError for an image that cannot be read.
    """
    pixels, im_info, objects = [], [], []
    for entry, size in zip(entries, sizes, strict=True):
        image = read_image(entry.image)
        if entry.flipped:
            image = np.ascontiguousarray(image[:, ::-1])
        prepared = prepare_image(image, cfg.PIXEL_MEANS, size, cfg.TRAIN.MAX_SIZE)
        pixels.append(prepared.pixels)
        # From the annotation file's size, half to even.
        height, width = (float(np.round(side * prepared.scale)) for side in (entry.height, entry.width))
        im_info.append(ImInfo(height, width, prepared.scale))
        objects.append(mirror(entry.ground_truth, entry.width) if entry.flipped else entry.ground_truth)
    names = [entry.image.name + (" (flipped)" if entry.flipped else "") for entry in entries]
    return Minibatch(number, image_blob(pixels, cfg.FPN.COARSEST_STRIDE), im_info, objects, names)


def sampling_seed(seed: int, number: int) -> int:
    """The seed of everything that is sampled on the n-th minibatch, for `torch.Generator.manual_seed`."""
    state = np.random.SeedSequence([seed, _SAMPLING, number]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


class MinibatchSchedule:
    """The images of every minibatch of a run, epoch by epoch.

    With `cfg.TRAIN.ASPECT_GROUPING` a minibatch holds images that are all at least as wide as high, or none: each group
    is shuffled and cut to a multiple of `cfg.TRAIN.IMS_PER_BATCH`, then whole minibatches are shuffled. Without it the
    last minibatch of an epoch is filled up from its beginning (Detectron roi_data/loader.py:_shuffle_roidb_inds,
    _get_next_minibatch_inds).
    """

    def __init__(self, roidb: Sequence[RoidbEntry], cfg: Config, seed: int) -> None:
        self._seed = seed
        self._size = cfg.TRAIN.IMS_PER_BATCH
        indices = np.arange(len(roidb))
        if cfg.TRAIN.ASPECT_GROUPING:
            horizontal = np.array([entry.width >= entry.height for entry in roidb], dtype=bool)
            groups = (indices[horizontal], indices[~horizontal])
            self._groups = [(group, len(group) // self._size) for group in groups]
        else:
            self._groups = [(indices, -(-len(indices) // self._size))]
        self.minibatches_per_epoch = sum(count for _, count in self._groups)
        if self.minibatches_per_epoch == 0:
            raise InputError(
                f"{len(roidb)} training images (flipped copies included) do not fill one minibatch of "
                f"TRAIN.IMS_PER_BATCH {self._size} of one orientation: lower it, or set TRAIN.ASPECT_GROUPING False"
            )
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty((0, self._size), dtype=np.int64)

    def images(self, number: int) -> npt.NDArray[np.int64]:
        """Indices `[cfg.TRAIN.IMS_PER_BATCH]` into the roidb of the n-th minibatch of the run."""
        epoch, row = divmod(number, self.minibatches_per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, _ORDER, epoch])
            rows = [np.resize(rng.permutation(group), (count, self._size)) for group, count in self._groups if count]
            self._order, self._epoch = rng.permutation(np.concatenate(rows), axis=0), epoch
        images: npt.NDArray[np.int64] = self._order[row]
        return images


class _Minibatches(Dataset["Minibatch | InputError"]):
    """Minibatches by their number. An error is returned, not raised: a DataLoader would wrap its sentence in others."""

    def __init__(self, roidb: Sequence[RoidbEntry], cfg: Config, seed: int) -> None:
        self._roidb, self._cfg, self._seed = roidb, cfg, seed
        self._schedule = MinibatchSchedule(roidb, cfg, seed)

    def __getitem__(self, number: int) -> "Minibatch | InputError":
        entries = [self._roidb[i] for i in self._schedule.images(number)]
        scales = self._cfg.TRAIN.SCALES
        chosen = np.random.default_rng([self._seed, _SCALE, number]).integers(len(scales), size=len(entries))
        try:
            return load_minibatch(entries, [scales[i] for i in chosen], self._cfg, number)
        except InputError as error:
            return error


def minibatches(
    roidb: Sequence[RoidbEntry], cfg: Config, seed: int, numbers: Iterable[int], workers: int, pin_memory: bool = False
) -> Iterator[Minibatch]:
    """The minibatches of the given numbers, in that order, loaded ahead by worker processes.

    Raises InputError at once where there are too few images for a minibatch, and for an image that cannot be read when
    its turn comes. `loader_fault` knows what torch raises when a worker is killed.
    """
    return _loaded(_Minibatches(roidb, cfg, seed), numbers, workers, pin_memory)


def _loaded(
    dataset: _Minibatches, numbers: Iterable[int], workers: int, pin_memory: bool
) -> Iterator[Minibatch]:
    with warnings.catch_warnings():
        # The caller decides how many workers there are; they overlap with the network even on one core.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=numbers,
            num_workers=workers,
            pin_memory=pin_memory,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_one_thread,
        )
        loaded = iter(loader)
    for minibatch in loaded:
        if isinstance(minibatch, InputError):
            raise minibatch
        yield minibatch


def loader_fault(error: RuntimeError) -> str | None:
    """A sentence about a worker of `minibatches` that was killed; None for every other error.

    torch raises this error wherever the main process is at that moment (torch.utils.data._utils.signal_handling).
    """
    if "DataLoader worker" not in str(error):
        return None
    return (
        f"a process that loads images was killed ({str(error).splitlines()[0].rstrip('. ')}), most likely for want of "
        "memory: pass fewer --workers"
    )


def _one_thread(worker: int) -> None:
    """Workers decode one image at a time; the cores are for the others."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
