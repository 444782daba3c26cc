"""Models of the references in parity/zoo, whose weights are made by their recipe."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.config import Config, takes_proposals, with_values
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, merge_overrides
from detectron_gn.port.config.yaml_dumper import dump_config
from detectron_gn.verify.parity.blobs import ImageParity, compare_image
from detectron_gn.verify.reference.image_dump import ImageReference, read_references
from detectron_gn.weights import write_blobs
from detectron_gn.weights.formats.proposals_pickle import ProposalsPickle, write_proposals
from detectron_gn.weights.weights_file import WeightsFile
from tests.helpers.recipe import zoo_weights

Array = npt.NDArray[Any]

V0UPSHARE = "mask_rcnn_heads.mask_rcnn_fcn_head_v0upshare"


def zoo_config(file: h5py.File) -> Config:
    """The configuration that a reference was made with."""
    name = f"{file.attrs['cfg_dir']}/{file.attrs['cfg']}"
    return merge_overrides(bundled_config(name), str(file.attrs["opts"]).split())


def zoo_model(path: Path, *overrides: str) -> Detector:
    """The model that a reference was made with, under further KEY VALUE pairs."""
    with h5py.File(path) as file:
        cfg = merge_overrides(zoo_config(file), overrides)
        # Where the mask head's res5 is the box head's, the file holds it once, whichever head the configuration names.
        held = with_values(cfg, {"MRCNN.ROI_MASK_HEAD": V0UPSHARE}) if file.attrs.get("shared") else cfg
        return build_model(cfg, zoo_weights(BlobTable.from_config(held), file))


class ZooFiles(NamedTuple):
    """The model of a reference as files: a pickle, the proposals of its images where it takes them, its configuration.

    A proposals file holds the proposals that went in, by the ids in the images' names.
    """

    pickle: Path
    proposals: Path | None
    cfg: Config


def zoo_files(reference: Path, folder: Path, *overrides: str) -> ZooFiles:
    """The files of the model that a reference was made with, under further KEY VALUE pairs, written into a folder."""
    model, name = zoo_model(reference, *overrides), reference.stem
    table = BlobTable.from_model(model)
    blobs = {row.blob: model.get_parameter(row.parameter).detach().numpy() for row in table.rows}
    path, proposals = folder / f"{name}.pkl", None
    write_blobs(path, WeightsFile(blobs, dump_config(model.cfg), None, name, "pkl"))
    if takes_proposals(model.cfg):
        proposals = folder / f"{name}_proposals.pkl"
        with h5py.File(reference) as file:
            boxes = [file[image]["proposals"][()] for image in file]
            ids = [int(Path(image).stem.rpartition("_")[2]) for image in file]
        scores = [np.linspace(1, 0, len(rows), dtype=np.float32) for rows in boxes]
        write_proposals(proposals, ProposalsPickle(boxes, scores, ids, None))
    return ZooFiles(path, proposals, model.cfg)


def zoo_parities(shared: Path, name: str) -> Iterator[tuple[Detector, ImageReference, ImageParity]]:
    """The model, and of each image of a reference what it is and how far the model is from it."""
    path = shared / "parity" / "zoo" / f"{name}.h5"
    model = zoo_model(path)
    for reference in read_references(path, shared / "data" / "coco_ccby" / "val2017", model.cfg):
        yield model, reference, compare_image(model, reference)


def variants(file: h5py.File, image: str, cfg: Config) -> Iterator[tuple[str, Config, h5py.Group]]:
    """The name, the configuration and the results of each variant of a reference's image, the file's own first."""
    yield "base", cfg, file[image]
    for name, group in file[f"{image}/variants"].items():
        yield name, merge_overrides(cfg, str(group.attrs["opts"]).split()), group


def assert_same_boxes(
    boxes: Array, scores: Array, classes: Array, group: h5py.Group, limits: tuple[float, float]
) -> None:
    """Every detection is the one in the same place of the reference; `limits` are in pixels and of the score."""
    assert classes.tolist() == group["det_classes"][:].tolist()
    np.testing.assert_allclose(boxes, group["det_boxes"][:], rtol=0, atol=limits[0])
    np.testing.assert_allclose(scores, group["det_scores"][:], rtol=0, atol=limits[1])
