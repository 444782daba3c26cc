"""Which images make a minibatch, and the minibatch itself; answers to Detectron roi_data/loader.py and minibatch.py.

Everything random is a function of the seed and of the minibatch's number. A run can therefore continue anywhere, and
ranks can share the work without messages: the n-th minibatch is the same, whichever process loads it.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config, padding_stride
from detectron_gn.mrcnn.data.ground_truth import BoolArray, GroundTruth
from detectron_gn.mrcnn.data.image_blob import image_blob, prepare_image
from detectron_gn.mrcnn.data.proposal_matches import MatchedProposals, match_stored_proposals
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading, read_training_image
from detectron_gn.mrcnn.data.roidb import Roidb, RoidbEntry
from detectron_gn.mrcnn.data.segms import flip_segm
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.boxes import flip_boxes
from detectron_gn.mrcnn.ops.keypoints import flip_keypoints
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.prefetch import mapped_ahead

# What the random numbers of a (seed, purpose, number) are for.
_ORDER, _SCALE, _SAMPLING, _REPLACEMENT = range(4)

# How many others are tried in place of a minibatch that is not trained on.
_TRIES = 1000
_FEW_KEYPOINTS = "no more visible keypoints than KRCNN.MIN_KEYPOINT_COUNT_FOR_VALID_MINIBATCH,"

# Minibatches, and at least one for each thread: a disk that is slow now and then is not waited for, and eight processes
# with four threads each stay in 4 GiB.
AHEAD = 4


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
        remarks: what is to be said about the image files, a sentence each.
        proposals: of each image, from a file; None for a model that makes its own.
    """

    number: int
    data: Tensor
    im_info: list[ImInfo]
    ground_truth: list[GroundTruth]
    names: list[str]
    remarks: list[str] = field(default_factory=list)
    proposals: list[MatchedProposals] | None = None

    def pin_memory(self) -> "Minibatch":
        """Page-locked, so that the copy to a GPU can overlap."""
        self.data = self.data.pin_memory()
        return self


def mirror(objects: GroundTruth, width: int) -> GroundTruth:
    """The ground truth of the mirrored image, `width` pixels wide."""
    boxes = flip_boxes(torch.from_numpy(objects.boxes), width).numpy()
    keypoints = None if objects.keypoints is None else flip_keypoints(objects.keypoints, width, objects.mirrored)
    segms = tuple(flip_segm(segm, width) for segm in objects.segms)
    return objects._replace(boxes=boxes, segms=segms, keypoints=keypoints)


def entry_proposals(entry: RoidbEntry, cfg: Config) -> MatchedProposals | None:
    """The proposals from a file of an entry, mirrored where it is; None where there are none.

    A mirrored entry has the overlaps of its original (Detectron datasets/roidb.py:extend_with_flipped_entries).
    """
    if entry.proposals is None:
        return None
    objects, size = entry.ground_truth, (entry.height, entry.width)
    matched = match_stored_proposals(entry.proposals, objects.boxes, objects.is_crowd, *size, cfg)
    return matched._replace(boxes=flip_boxes(matched.boxes, entry.width)) if entry.flipped else matched


def load_minibatch(
    entries: Sequence[RoidbEntry],
    sizes: Sequence[int],
    cfg: Config,
    number: int = 0,
    reading: ImageReading = AS_IMREAD,
) -> Minibatch:
    """Read, mirror, scale and stack images.

    Args:
        entries: the images.
        sizes: the length of the short side of each, one of `cfg.TRAIN.SCALES`.

    Raises InputError for an image that cannot be read or has another size than its annotations say.
    """
    pixels, im_info, objects, remarks = [], [], [], []
    for entry, size in zip(entries, sizes, strict=True):
        image, _, remark = read_training_image(entry.image, reading, (entry.height, entry.width))
        if remark is not None:
            remarks.append(remark)
        if entry.flipped:
            image = np.ascontiguousarray(image[:, ::-1])
        prepared = prepare_image(image, cfg.PIXEL_MEANS, size, cfg.TRAIN.MAX_SIZE)
        pixels.append(prepared.pixels)
        # From the annotation file's size, half to even.
        height, width = (float(np.round(side * prepared.scale)) for side in (entry.height, entry.width))
        im_info.append(ImInfo(height, width, prepared.scale))
        objects.append(mirror(entry.ground_truth, entry.width) if entry.flipped else entry.ground_truth)
    names = [entry.image.name + (" (flipped)" if entry.flipped else "") for entry in entries]
    proposals = [found for entry in entries if (found := entry_proposals(entry, cfg)) is not None]
    data = image_blob(pixels, padding_stride(cfg))
    return Minibatch(number, data, im_info, objects, names, remarks, proposals or None)


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

    Args:
        is_horizontal: `[N]`, of each entry of the roidb, whether it is at least as wide as high.
    """

    def __init__(self, is_horizontal: BoolArray, cfg: Config, seed: int) -> None:
        self._seed = seed
        self._size = cfg.TRAIN.IMS_PER_BATCH
        indices = np.arange(len(is_horizontal))
        if cfg.TRAIN.ASPECT_GROUPING:
            groups = (indices[is_horizontal], indices[~is_horizontal])
            self._groups = [(group, len(group) // self._size) for group in groups]
        else:
            self._groups = [(indices, -(-len(indices) // self._size))]
        self.minibatches_per_epoch = sum(count for _, count in self._groups)
        if self.minibatches_per_epoch == 0:
            raise InputError(
                f"{len(indices)} training images (flipped copies included) do not fill one minibatch of "
                f"TRAIN.IMS_PER_BATCH {self._size} of one orientation: lower it, or set TRAIN.ASPECT_GROUPING False"
            )
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty((0, self._size), dtype=np.int64)

    def images(self, number: int) -> npt.NDArray[np.int64]:
        """Indices `[cfg.TRAIN.IMS_PER_BATCH]` into the roidb of the n-th minibatch of the run."""
        epoch, row = divmod(number, self.minibatches_per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._order_of(epoch), epoch
        images: npt.NDArray[np.int64] = self._order[row]
        return images

    def others(self, number: int) -> Iterator[npt.NDArray[np.int64]]:
        """Other minibatches of the epoch of the n-th, in an order that hangs on nothing but the seed and n."""
        epoch, row = divmod(number, self.minibatches_per_epoch)
        order = self._order_of(epoch)
        rng = np.random.default_rng([self._seed, _REPLACEMENT, number])
        return (order[other] for other in rng.permutation(len(order))[:_TRIES] if other != row)

    def _order_of(self, epoch: int) -> npt.NDArray[np.int64]:
        """The minibatches `[M, cfg.TRAIN.IMS_PER_BATCH]` of an epoch."""
        rng = np.random.default_rng([self._seed, _ORDER, epoch])
        rows = [np.resize(rng.permutation(group), (count, self._size)) for group, count in self._groups if count]
        order: npt.NDArray[np.int64] = rng.permutation(np.concatenate(rows), axis=0)
        return order


def minibatches(
    roidb: Roidb,
    cfg: Config,
    seed: int,
    numbers: Iterable[int],
    workers: int,
    pin_memory: bool = False,
    reading: ImageReading = AS_IMREAD,
    is_trained_on: Callable[[Minibatch], bool] = lambda minibatch: True,
) -> Generator[Minibatch, None, None]:
    """The minibatches of the given numbers, in that order, loaded ahead by threads.

    Threads, as in Detectron (roi_data/loader.py:minibatch_loader_thread): OpenCV decodes and scales without Python's
    lock, so they keep all cores busy, and unlike processes they need no shared memory, copy nothing, and end with the
    one that trains.

    Args:
        workers: how many threads; 0 loads each minibatch when it is asked for. They are up to `AHEAD` minibatches
            ahead of the network.
        pin_memory: put the images where a copy to a GPU can overlap.
        reading: how image files are read.
        is_trained_on: whether a minibatch is. In place of another one, one of the same epoch is taken. Detectron takes
            the next one, so that all later ones move up (roi_data/loader.py:get_next_minibatch).

    Raises InputError at once where there are too few images for a minibatch, and for an image that cannot be read when
    its turn comes, or where no other minibatch is trained on.
    """
    schedule = MinibatchSchedule(roidb.is_horizontal, cfg, seed)

    def load(chosen: _Chosen) -> Minibatch:
        number = chosen.number
        for images in chain([chosen.images], (other.tolist() for other in schedule.others(number))):
            minibatch = load_minibatch([roidb[i] for i in images], chosen.sizes, cfg, number, reading)
            if is_trained_on(minibatch):
                return minibatch.pin_memory() if pin_memory else minibatch
        raise InputError(
            f"minibatch {number} and all others that were tried have {_FEW_KEYPOINTS} "
            f"{cfg.KRCNN.MIN_KEYPOINT_COUNT_FOR_VALID_MINIBATCH}: lower it, or raise TRAIN.IMS_PER_BATCH or "
            "TRAIN.BATCH_SIZE_PER_IM"
        )

    chosen = (_chosen(schedule, cfg, seed, number) for number in numbers)
    return mapped_ahead(load, chosen, workers, max(AHEAD, workers))


class _Chosen(NamedTuple):
    """What makes a minibatch: its number, its entries of the roidb, and the length of the short side of each."""

    number: int
    images: list[int]
    sizes: list[int]


def _chosen(schedule: MinibatchSchedule, cfg: Config, seed: int, number: int) -> _Chosen:
    images = schedule.images(number).tolist()
    scales = np.random.default_rng([seed, _SCALE, number]).integers(len(cfg.TRAIN.SCALES), size=len(images))
    return _Chosen(number, images, [cfg.TRAIN.SCALES[i] for i in scales])
