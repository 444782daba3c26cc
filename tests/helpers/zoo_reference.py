"""Models of the references in parity/zoo, whose weights are made by their recipe."""

from collections.abc import Iterator
from pathlib import Path

import h5py

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, merge_overrides
from detectron_gn.verify.parity.blobs import ImageParity, compare_image
from detectron_gn.verify.reference.image_dump import ImageReference, read_references
from tests.helpers.recipe import zoo_weights


def zoo_config(file: h5py.File) -> Config:
    """The configuration that a reference was made with."""
    name = f"{file.attrs['cfg_dir']}/{file.attrs['cfg']}"
    return merge_overrides(bundled_config(name), str(file.attrs["opts"]).split())


def zoo_model(path: Path) -> Detector:
    """The model that a reference was made with."""
    with h5py.File(path) as file:
        cfg = zoo_config(file)
        return build_model(cfg, zoo_weights(BlobTable.from_config(cfg), file))


def zoo_parities(shared: Path, name: str) -> Iterator[tuple[Detector, ImageReference, ImageParity]]:
    """The model, and of each image of a reference what it is and how far the model is from it."""
    path = shared / "parity" / "zoo" / f"{name}.h5"
    model = zoo_model(path)
    for reference in read_references(path, shared / "data" / "coco_ccby" / "val2017", model.cfg):
        yield model, reference, compare_image(model, reference)
