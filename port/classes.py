"""What the classes of a weights file are called, and who says so: the file, its run, the catalog, its configuration.

Detectron has class names only in the annotation file that it evaluates on (datasets/json_dataset.py:JsonDataset), so a
file of its own is taken for COCO's where it was trained on COCO, and for nobody's elsewhere.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.categories import Categories, numbered
from detectron_gn.mrcnn.data.coco_names import COCO_CATEGORIES, PERSON
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.family import family_of
from detectron_gn.port.blobs.summary import config_summary
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs.run_record import recorded_categories
from detectron_gn.weights.catalog import entry_of_file, lookup
from detectron_gn.weights.categories import CATEGORIES, Category, category_fault, keypoints_of, names_of
from detectron_gn.weights.errors import UnknownModel
from detectron_gn.weights.weights_file import WeightsFile

logger = logging.getLogger(__name__)

# In lines of a terminal.
UNNAMED = (
    "no class names are known, so they are called 'class 1', 'class 2', ...: give\n"
    "--classes NAMES.txt (one name a line)"
)
NUMBERED = f"{UNNAMED} or --annotations A.json (its categories)"
BY_PLACE = (
    "class k is taken to be the k-th category in the list of the annotations, since\n"
    "Detectron's files name no classes; --classes NAMES.txt matches by name"
)

# Detectron's names of data sets (datasets/dataset_catalog.py), and which categories they have.
_COCO = re.compile(r"coco_20\d\d_.*")
_COCO_PERSONS = re.compile(r"keypoints_coco_20\d\d_.*")
# The newest name of the key first.
_DATA_SET_KEYS = ("TRAIN.DATASETS", "TRAIN.DATASET", "TEST.DATASETS", "TEST.DATASET")


def known_categories(weights: WeightsFile, source: str | Path, cfg: Config | None = None) -> Categories | None:
    """The categories of a detector's classes; None where nothing says what they are.

    Args:
        source: what the user gave: a model id, a URL or a file.
        cfg: the configuration that the file is used with, which counts where the file holds none.

    The file itself counts first, then `run.json` beside it, then the catalog, then the data sets that its configuration
    names. None of them counts where it has another number of classes than the file's classifier or, where that does not
    tell, as in a RetinaNet, than `cfg`.
    """
    if CATEGORIES in weights.left_out:
        logger.warning("%s: its %r %s", weights.source, CATEGORIES, weights.left_out[CATEGORIES])
    return _known(weights, source, cfg)


def _known(weights: WeightsFile, source: str | Path, cfg: Config | None) -> Categories | None:
    family = family_of(weights.blobs)
    rows = family.classes if family.is_detector else None
    if rows is None:
        # Of unknown kind is a state_dict of ours, whose arrays have the parameters' names.
        if family.box_head != "RetinaNet" and (family.kind != "unknown" or cfg is None):
            return None
        rows = None if cfg is None else cfg.MODEL.NUM_CLASSES
    if weights.categories is not None:
        if rows is None or len(weights.categories) == rows - 1:
            ids = tuple(category.id for category in weights.categories)
            return Categories(names_of(weights.categories), ids, keypoints_of(weights.categories))
        logger.warning(
            "%s names %d classes, but the model has %d besides the background: the names are not used",
            weights.source, len(weights.categories), rows - 1,
        )  # fmt: skip
    recorded = recorded_categories(Path(source).parent) if Path(source).is_file() else None
    trained = _trained_on(weights, str(source), cfg)
    known = (found for found in (recorded, trained) if found is not None)
    return next((found for found in known if rows is None or len(found.names) == rows - 1), None)


def categories_of(
    cfg: Config, weights: WeightsFile, source: str | Path, names: Sequence[str] | None = None
) -> Categories | None:
    """`known_categories` of a file with the configuration that it is used with, under other names where they are given.

    Args:
        names: of classes 1, 2, ... They keep their ids, or have 1, 2, ... where there are none.

    Raises InputError where there are not as many names as the model has classes.
    """
    if names is None:
        return known_categories(weights, source, cfg)
    count = cfg.MODEL.NUM_CLASSES - 1
    if len(names) != count:
        raise InputError(
            f"{len(names)} class names are given, but the model has {count} classes besides the background: give one "
            "for each, in their order"
        )
    known = _known(weights, source, cfg) or numbered(count)
    return Categories(tuple(names), known.ids, known.keypoints)


def file_categories(categories: Categories, source: object) -> tuple[Category, ...]:
    """Categories as a weights file carries them; InputError, naming their source, where one cannot.

    Better before a run of days than at its first checkpoint.
    """
    pairs = zip(categories.ids, categories.names, strict=True)
    found = tuple(Category(*pair, categories.keypoints) for pair in pairs)
    fault = category_fault(found)
    if fault is not None:
        raise InputError(f"{source} {fault}, and weights files could not keep it: mend its 'categories'")
    return found


def _trained_on(weights: WeightsFile, source: str, cfg: Config | None) -> Categories | None:
    """COCO's categories, or its one of keypoints, where the file was trained on COCO."""
    data_sets = _catalog_data_sets(source) or _saved_data_sets(weights) or _catalog_data_sets(Path(weights.source))
    if not data_sets and cfg is not None:
        data_sets = cfg.TRAIN.DATASETS or cfg.TEST.DATASETS
    for pattern, categories in ((_COCO, COCO_CATEGORIES), (_COCO_PERSONS, PERSON)):
        if data_sets and all(pattern.fullmatch(name) for name in data_sets):
            return categories
    return None


def _catalog_data_sets(source: str | Path) -> tuple[str, ...]:
    """What a model of the catalog was trained on, by its id, name or URL, or by its file; nothing for other sources."""
    try:
        if isinstance(source, Path):
            entry = entry_of_file(source) if source.is_file() else None
        else:
            entry = lookup(source)
    except UnknownModel:
        return ()
    return () if entry is None or entry.config is None else bundled_config(entry.config).TRAIN.DATASETS


def _saved_data_sets(weights: WeightsFile) -> tuple[str, ...]:
    """What the configuration inside a file names as its data sets, of training or else of testing."""
    saved = {} if weights.cfg is None else config_summary(weights.cfg, _DATA_SET_KEYS)
    named = next((saved[key] for key in _DATA_SET_KEYS if saved.get(key)), "")
    return tuple(name for name in re.split("[, :]+", named) if name)
