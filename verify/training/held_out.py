"""The losses on evaluation data, to hold beside the AP: of every image once, not mirrored, with the same samples.

Detectron has no such thing. An image is a minibatch by itself, of the longest of TRAIN.SCALES; its samples are drawn
from a generator of RNG_SEED and its place, so that they are the same for each checkpoint.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.minibatch import load_minibatch, sampling_seed
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.read_image import ImageReading
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.stopping import tell_nothing, until_stopped
from detectron_gn.mrcnn.training.outputs import losses_of
from detectron_gn.mrcnn.training.samplers import RandomSampler, has_enough_keypoints
from detectron_gn.verify.training.evaluation_data import EvaluationData


class HeldOutLosses:
    """The losses of a model on one evaluation set.

    Args:
        cfg: of the run.
        data: the evaluation set.
        category_ids: of classes 1, 2, ... in its annotations; None where an RPN by itself is trained, to which all
            classes are one.

    Raises InputError where no image could be trained on, or where an image or its outlines are missing.
    """

    def __init__(self, cfg: Config, data: EvaluationData, category_ids: Sequence[int] | None) -> None:
        self._cfg = cfg
        dataset = read_dataset(data.annotations, data.images)
        if category_ids is not None:
            by_id = {category["id"]: dict(category) for category in dataset.categories}
            ordered = tuple(by_id[category_id] for category_id in category_ids)
            names = (dataset.classes[0], *(category["name"] for category in ordered))
            dataset = replace(dataset, classes=names, instances=replace(dataset.instances, categories=ordered))
        of_data = with_values(cfg, {"MODEL.NUM_CLASSES": len(dataset.classes), "TRAIN.USE_FLIPPED": False})
        proposals: Sequence[StoredProposals] = [] if data.proposals is None else [data.proposals]
        self._roidb = training_roidb([dataset], of_data, proposals)

    @torch.no_grad()
    def of(
        self,
        model: Detector,
        ranks: Ranks,
        reading: ImageReading,
        forward_context: Callable[[], AbstractContextManager[object]],
        tell: Callable[[], object] = tell_nothing,
    ) -> dict[str, float] | None:
        """The mean over the images of each loss, and their sum as `loss`; None in every process but the first.

        The processes share the images out. The mean is that of `json_stats` lines, which sum over the minibatches of
        an iteration losses that are divided by NUM_GPUS.

        Args:
            tell: says, when a signal has come, what is finished before it ends the run.
        """
        model.train()
        size = max(self._cfg.TRAIN.SCALES)
        own: list[tuple[int, dict[str, float]]] = []
        for place in until_stopped(ranks.share(range(len(self._roidb))), tell):
            minibatch = load_minibatch([self._roidb[place]], [size], self._cfg, place, reading)
            if not has_enough_keypoints(minibatch, self._cfg):
                continue
            sampler = RandomSampler(self._cfg, model.device, sampling_seed(self._cfg.RNG_SEED, place))
            with model.products(), forward_context():
                losses = losses_of(model.losses(minibatch, sampler))
            own.append((place, {name: float(loss) * self._cfg.NUM_GPUS for name, loss in losses.items()}))
        every = [losses for _, losses in sorted(sum(ranks.collect(own), []), key=lambda each: each[0])]
        if not ranks.is_first:
            return None
        names = every[0] if every else {}
        means = {name: sum(losses[name] for losses in every) / len(every) for name in names}
        return {"loss": sum(means.values()), **means}
