"""What a training step takes, beside detectron2's in the same setting.

    python -m benchmarks.train_step [--config NAME] [--rounds 7] [--threads 2] [--freeze-at 0] [--foreground 128]
        [--picture 320x480] [--cpu-time] [--json FILE]

One synthetic picture, of 320 x 480 unless told otherwise, with eight drawn objects, random weights, 512 RoIs,
`--foreground` of them objects; of a RetinaNet all anchors. A step is the forward pass with sampling and losses, the
backward pass and the solver. Boxes close to the objects join the proposals of either side, and both assert in every
step that they trained on as many RoIs and objects. With detectron2 importable the two take turns within the process,
and the ratio is the median over pairs of turns. The process keeps freed memory, as `detectron-gn train` does.
`--cpu-time` counts the processor's time, with `--threads 1` on a busy machine.
"""

import json
import math
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks import detectron2_peer as peer
from benchmarks.common import Clock, Seconds, hold_down, options, paired_ratio, picture, print_medians, set_up, turns
from detectron_gn.mrcnn.config import Config, padding_stride, with_values
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.image_blob import Image, image_blob, padded_size, prepare_image
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.memory import keep_freed_memory
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.training.network import TrainingNetwork
from detectron_gn.mrcnn.training.outputs import losses_of
from detectron_gn.mrcnn.training.roi_targets import RoiSample
from detectron_gn.mrcnn.training.samplers import RandomSampler
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.config.read import bundled_config

Size = tuple[int, int]  # height and width
SIZE: Size = (320, 480)
OBJECTS = 8
CLOSE_BOXES = 64  # of each object, each overlapping it by more than half
# So small that the network stays as it was filled, however many steps are measured.
LEARNING_RATE = 1e-5


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--freeze-at", type=int, default=0, help="TRAIN.FREEZE_AT (default 0: everything is trained)")
    parser.add_argument("--foreground", type=int, default=128, help="RoIs that are objects, of 512 (default 128)")
    parser.add_argument("--picture", type=_size, default=SIZE, metavar="HxW", help="its size (default 320x480)")
    parser.add_argument("--cpu-time", action="store_true", help="count the processor's time; with --threads 1")
    args = parser.parse_args()
    set_up(args)
    clock = time.process_time if args.cpu_time else time.perf_counter
    keep_freed_memory()
    torch.manual_seed(0)
    settings = {"TRAIN.FREEZE_AT": args.freeze_at, "TRAIN.IMS_PER_BATCH": 1, "NUM_GPUS": 1}
    settings |= {"TRAIN.BATCH_SIZE_PER_IM": 512, "TRAIN.FG_FRACTION": args.foreground / 512}
    cfg = with_values(bundled_config(args.config), settings)

    rois = "" if cfg.RETINANET.RETINANET_ON else f", 512 RoIs, {args.foreground} of them objects"
    height, width = args.picture
    print(f"{args.config}, {args.threads} threads, {height} x {width}{rois}", flush=True)
    image, objects = drawn_objects(args.picture, cfg.MODEL.KEYPOINTS_ON)
    close = close_boxes(objects, args.picture)
    sides = {"ours": training_step(cfg, image, objects, close)}
    if peer.available():
        # Where Detectron pads to a multiple of 128, it is given as large a picture.
        height, width = padded_size(*args.picture, padding_stride(cfg))
        padded = np.pad(image, ((0, height - args.picture[0]), (0, width - args.picture[1]), (0, 0)))
        sides["detectron2"] = peer.training_step(cfg, padded, objects, close, LEARNING_RATE)
    times: dict[str, Seconds] = {side: {"forward": [], "backward": [], "step": [], "total": []} for side in sides}
    for turn in turns(args.rounds + 1):
        for side, (forward, update) in sides.items():
            measured = timed_step(forward, update, clock)
            if turn:  # the first finds everything cold
                for part, value in measured.items():
                    times[side][part].append(value)

    for side, parts in times.items():
        print(f"{side}:")
        print_medians(parts, "  ")
    ratios = {}
    if "detectron2" in times:
        for part, ours in times["ours"].items():
            ratios[part] = paired_ratio(ours, times["detectron2"][part])
        print(f"ours / detectron2 (medians of {args.rounds} pairs):")
        for part, ratio in ratios.items():
            print(f"  {part:26} {ratio:8.3f}")
    else:
        print(peer.HOW_TO_GET)
    if args.json is not None:
        args.json.write_text(json.dumps({"ratios": ratios, "seconds": times}, indent=1))


def _size(text: str) -> Size:
    height, width = map(int, text.split("x"))
    return height, width


def drawn_objects(size: Size = SIZE, with_keypoints: bool = False) -> tuple[Image, GroundTruth]:
    """A picture with objects of all sizes on it, ellipses as polygons of 24 points, each of a class of its own.

    With keypoints all are of one class, and 17 of the points are its keypoints.
    """
    (height, width), rng = size, np.random.default_rng(1)
    image = picture(height, width)
    boxes, segms = [], []
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for _ in range(OBJECTS):
        radius = np.array([width, height]) / 2 * rng.uniform(0.1, 0.5, 2)
        centre = rng.uniform(radius + 1, np.array([width, height]) - radius - 1)
        points = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        cv2.fillPoly(image, [points.round().astype(np.int32)], colour)
        boxes.append([*points.min(axis=0), *(points.max(axis=0) - 1)])
        segms.append((points.ravel(),))
    classes, keypoints = np.arange(1, OBJECTS + 1, dtype=np.int64), None
    if with_keypoints:
        classes = np.ones(OBJECTS, np.int64)
        places = np.stack([segm[0].reshape(-1, 2)[:17].T for segm in segms])
        keypoints = np.concatenate((places, np.full((OBJECTS, 1, 17), 2)), axis=1).astype(np.int32)
    is_crowd = np.zeros(OBJECTS, bool)
    return image, GroundTruth(np.array(boxes, dtype=np.float32), classes, is_crowd, tuple(segms), keypoints)


def close_boxes(objects: GroundTruth, size: Size = SIZE) -> Tensor:
    """Boxes `[P, 4]` float32 whose corners are off the objects' by up to a twentieth of their sides."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.from_numpy(objects.boxes).repeat(CLOSE_BOXES, 1)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    boxes = boxes + (torch.rand(boxes.shape, generator=generator) - 0.5) * sides / 10
    return torch.minimum(boxes.clamp(min=0), torch.tensor([size[1] - 1, size[0] - 1] * 2))


class CloseSampler(RandomSampler):
    """Detectron's sampling, from the network's proposals and boxes close to the objects."""

    def __init__(self, cfg: Config, close: Tensor) -> None:
        super().__init__(cfg, close.device, seed=0)
        self._close = torch.cat((close.new_zeros((len(close), 1)), close), dim=1)

    def rois(self, proposals: Tensor | None, minibatch: Minibatch) -> RoiSample:
        assert proposals is not None
        sample = super().rois(torch.cat((proposals, self._close)), minibatch)
        train = self._cfg.TRAIN
        counts = len(sample.rois), int((sample.labels > 0).sum())
        wanted = train.BATCH_SIZE_PER_IM, round(train.FG_FRACTION * train.BATCH_SIZE_PER_IM)
        assert counts == wanted, f"(RoIs, objects among them) are {counts}, not {wanted}"
        return sample


def training_step(
    cfg: Config, image: Image, objects: GroundTruth, close: Tensor
) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """A forward pass that gives the total loss of the image, and a step of the solver on the gradients."""
    model = build_detector(cfg).train().to(memory_format=torch.channels_last)
    hold_down(model)
    network, solver = TrainingNetwork(model), MomentumSGD.from_config(model, cfg)
    solver.set_learning_rate(LEARNING_RATE)
    height, width = image.shape[:2]
    prepared = prepare_image(image, cfg.PIXEL_MEANS, min(height, width), max(height, width))
    assert prepared.scale == 1
    data = image_blob([prepared.pixels], padding_stride(cfg))
    minibatch = Minibatch(0, data, [ImInfo(height, width, 1.0)], [objects], ["synthetic"])

    def forward() -> Tensor:
        outputs = network(minibatch, CloseSampler(cfg, close))
        return torch.stack(list(losses_of(outputs).values())).sum()

    def update() -> None:
        solver.step()
        solver.zero_grad()

    return forward, update


def timed_step(
    forward: Callable[[], Tensor], update: Callable[[], None], clock: Clock = time.perf_counter
) -> dict[str, float]:
    """The seconds of a step's parts and of all of it."""
    moments = [clock()]
    loss = forward()
    moments.append(clock())
    loss.backward()
    moments.append(clock())
    update()
    moments.append(clock())
    assert math.isfinite(loss.item()), f"the loss is {loss.item()}"
    parts = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]
    return dict(zip(("forward", "backward", "step", "total"), (*parts, sum(parts)), strict=True))


if __name__ == "__main__":
    main()
