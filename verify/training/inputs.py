"""What a training run is made of, from what the user names: configuration, starting point, data sets, class names."""

import os
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from pathlib import Path

from detectron_gn.mrcnn.config import Config, check_config, flatten, with_values
from detectron_gn.mrcnn.data.categories import BACKGROUND, Places
from detectron_gn.mrcnn.data.coco import CocoDataset, check_image_dir, dataset_of, read_dataset
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.schedule import scaled_schedule, schedule_changes
from detectron_gn.mrcnn.wording import printable
from detectron_gn.port.config.read import lacks_box_weights
from detectron_gn.port.config.readable_yaml import readable_config
from detectron_gn.port.config.saved import BOX_WEIGHTS, UnsupportedModel
from detectron_gn.port.runs.load import configured_weights, find_config
from detectron_gn.verify.training.data_cache import read_instances_once
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.weights_file import WeightsFile

_RATES = ("SOLVER.BASE_LR", "SOLVER.LRS")


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


def read_datasets(annotations: Sequence[Path], images: Sequence[Path]) -> list[CocoDataset]:
    """The data sets of as many annotation files as folders."""
    _check_pairs(annotations, images)
    return [read_dataset(*pair) for pair in zip(annotations, images)]


def _check_pairs(annotations: Sequence[Path], images: Sequence[Path]) -> None:
    if len(annotations) != len(images):
        raise InputError(f"{len(annotations)} --annotations need as many --images, not {len(images)}")


def training_data(
    annotations: Sequence[Path], images: Sequence[Path], cache: Path, say: Callable[[str], None]
) -> list[CocoDataset]:
    """The data sets to train on; InputError where a record of one cannot be used.

    Args:
        cache: where large annotation files are kept as they were read.
        say: prints a line.
    """
    _check_pairs(annotations, images)
    for folder in images:
        check_image_dir(folder)
    datasets = [dataset_of(read_instances_once(path, cache, say), folder) for path, folder in zip(annotations, images)]
    for dataset in datasets:
        dataset.refuse_faults()
    return datasets


def with_classes_of(dataset: CocoDataset, cfg: Config, own_keys: Container[str]) -> Config:
    """The configuration with as many classes as a data set has; as it is where the person has set their number."""
    if "MODEL.NUM_CLASSES" in own_keys:
        return cfg
    return with_values(cfg, {"MODEL.NUM_CLASSES": len(dataset.classes)})


def with_names_of(datasets: Sequence[CocoDataset], cfg: Config, own_keys: Container[str]) -> Config:
    """The configuration with the annotation files' names as TRAIN.DATASETS, for whoever reads it in a checkpoint.

    It stays as it is where the person has set it.
    """
    if "TRAIN.DATASETS" in own_keys:
        return cfg
    names = (os.fsencode(dataset.annotation_file.stem).decode("utf-8", "replace") for dataset in datasets)
    return with_values(cfg, {"TRAIN.DATASETS": tuple(map(printable, names))})


def with_own_rates(scaled: Config, cfg: Config, own_keys: Container[str]) -> Config:
    """A scaled schedule with the learning rates of the original where the person has set them."""
    own = {key: value for key, value in flatten(cfg).items() if key in _RATES and key in own_keys}
    return with_values(scaled, own)


def rename_classes(datasets: Sequence[CocoDataset], names: Sequence[str], source: str) -> list[CocoDataset]:
    """The data sets with other class names, which are those of their categories in the order of each.

    Args:
        names: without the background.
        source: where they come from, for sentences.

    Raises InputError where there are not as many, and where two data sets list the same categories in another order:
    under new names nobody would notice.
    """
    classes = (BACKGROUND, *names)
    first = datasets[0]
    for dataset in datasets:
        if len(dataset.classes) != len(classes):
            raise InputError(
                f"{source} names {len(classes) - 1} classes, but {dataset.annotation_file} has "
                f"{len(dataset.category_ids)} categories: give one name a line for each, in their order"
            )
        places = Places(first.classes)
        for place, name in enumerate(dataset.classes):
            if places.find(name) not in (None, place):
                raise InputError(
                    f"{name!r} is category {place} of {dataset.annotation_file}, but category {places.find(name)} of "
                    f"{first.annotation_file}: list the same categories in the same order in both"
                )
    return [replace(dataset, classes=classes) for dataset in datasets]


def write_scaled_schedule(cfg: Config, gpus: int, out: Path) -> tuple[Path, list[str]]:
    """Write the configuration for another number of GPUs into a folder; returns the file and what changed.

    Raises InputError where there are too many of them.
    """
    scaled = scaled_schedule(cfg, gpus)
    check_config(scaled)
    path = out / f"config_{gpus}gpu.yaml"
    old, new = flatten(cfg), flatten(scaled)
    comments = {key: f"was {_shown(value)}" for key, value in old.items() if new[key] != value}
    comments["MODEL.NUM_CLASSES"] = "the background counts; without this line `train` takes it from the data"
    heading = [
        f"For {gpus} GPU{'s' * (gpus > 1)} by the linear rule: the rate goes with the images of an iteration, the",
        "number of iterations against it. Keys that are not here have Detectron's defaults.",
    ]
    with replacing(path) as temporary:
        temporary.write_text(readable_config(scaled, heading, comments), encoding="utf-8")
    return path, schedule_changes(cfg, scaled)


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
