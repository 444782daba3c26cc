"""What a training run is made of, from what the user names: configuration, starting point, data sets, class names."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.coco import BACKGROUND, CocoDataset, read_dataset
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.schedule import scaled_schedule, schedule_changes
from detectron_gn.port.config.read import dump_config, lacks_box_weights
from detectron_gn.port.config.saved import BOX_WEIGHTS, UnsupportedModel
from detectron_gn.port.runs.load import configured_weights, find_config
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.weights_file import WeightsFile


def training_source(config: str | None, weights: str | None, overrides: Sequence[str]) -> tuple[Config, str]:
    """The configuration to train, and where to start from: `weights`, or what TRAIN.WEIGHTS names, or nothing ("")."""
    if config is not None:
        cfg = find_config(config, overrides)
        return cfg, weights or cfg.TRAIN.WEIGHTS
    if weights is None:
        raise InputError("nothing says what to train: pass --config, or --weights with a configuration inside")
    return configured_weights(weights, None, overrides)[0], weights


def refuse_old_box_weights(weights: WeightsFile, overrides: Sequence[str]) -> None:
    """InputError for a detector whose box head was trained with other box weights than a run can use.

    Its configuration is older than MODEL.BBOX_REG_WEIGHTS (Detectron utils/net.py:configure_bbox_reg_weights refuses to
    train it, too).
    """
    if weights.cfg is None or "bbox_pred_w" not in weights.blobs or BOX_WEIGHTS in overrides[::2]:
        return
    try:
        is_old = lacks_box_weights(weights.cfg, weights.source)
    except UnsupportedModel:
        raise
    except InputError:
        return
    if is_old:
        raise InputError(
            f"the configuration in {weights.source} does not name {BOX_WEIGHTS}, so its box head is taken to be older "
            f"than that key, and Detectron does not train it on: pass --set {BOX_WEIGHTS} '(10., 10., 5., 5.)' if it "
            "was trained with those, or '(1., 1., 1., 1.)'"
        )


def training_data(annotations: Sequence[Path], images: Sequence[Path], names: Path | None) -> list[CocoDataset]:
    """The data sets to train on, with the class names of a file where one is given."""
    if len(annotations) != len(images):
        raise InputError(f"{len(annotations)} --annotations need as many --images, not {len(images)}")
    datasets = [read_dataset(*pair) for pair in zip(annotations, images)]
    if names is None:
        return datasets
    classes = class_names(names)
    for dataset in datasets:
        if len(dataset.classes) != len(classes):
            raise InputError(
                f"{names} names {len(classes) - 1} classes, but {dataset.annotation_file} has "
                f"{len(dataset.category_ids)} categories: give one name a line for each, in their order"
            )
    return [replace(dataset, classes=classes) for dataset in datasets]


def class_names(path: Path) -> tuple[str, ...]:
    """Class names, one a line, after the background."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text in UTF-8: give class names, one a line") from None
    names = [line.strip() for line in lines if line.strip()]
    for name in names:
        if names.count(name) > 1 or name == BACKGROUND:
            raise InputError(
                f"{path}: the class {name} " + ("is given twice: " if name != BACKGROUND else "is what is no object: ")
                + "give each class a name of its own, without the background"
            )
    return (BACKGROUND, *names)


def write_scaled_schedule(cfg: Config, gpus: int, out: Path) -> tuple[Path, list[str]]:
    """Write the configuration for another number of GPUs into a folder; returns the file and what changed."""
    scaled = scaled_schedule(cfg, gpus)
    path = out / f"config_{gpus}gpu.yaml"
    with replacing(path) as temporary:
        temporary.write_text(dump_config(scaled), encoding="utf-8")
    return path, schedule_changes(cfg, scaled)
