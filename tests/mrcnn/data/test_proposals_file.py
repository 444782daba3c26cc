"""Proposals of a file become those that Detectron would use (values computed by Detectron)."""

import h5py
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.proposals_file import StoredProposals, usable_proposals
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.rois import given_rois
from detectron_gn.mrcnn.ops.proposals import first_of_equal


@pytest.fixture(scope="module")
def values(data):
    with h5py.File(data / "zoo" / "ops_two_stage.h5") as file:
        yield file


def coco_of(**sizes):
    coco = COCO()
    coco.dataset = {"images": [{"id": 7, **sizes}], "annotations": [], "categories": []}
    coco.createIndex()
    return coco


def test_proposals_are_clipped_told_apart_by_pixel_and_not_too_small(values):
    group = values["proposals"]
    kept = usable_proposals(group["boxes"][()], int(group.attrs["height"]), int(group.attrs["width"]), 0)
    np.testing.assert_array_equal(kept, group["kept"][()])
    assert 0 < len(kept) < len(group["boxes"])
    first = usable_proposals(group["boxes"][()], int(group.attrs["height"]), int(group.attrs["width"]), 5)
    np.testing.assert_array_equal(first, kept[:5])


def test_rois_that_count_as_equal_are_found_in_the_order_of_detectrons_hash(values):
    group = values["dedup"]
    index, kind = first_of_equal(group["rois"][()] * np.float32(group.attrs["dedup"]))
    np.testing.assert_array_equal(index, group["index"][()])
    np.testing.assert_array_equal(kind, group["inverse"][()])


def test_all_proposals_that_count_as_equal_take_the_boxes_of_the_first():
    proposals = torch.tensor([[100.0, 100, 197, 197], [10, 10, 50, 50], [101, 100, 197, 198]])
    rois = given_rois(proposals, index=3, scale=1.0, dedup=0.0625)
    assert rois.rois[:, 0].tolist() == [3, 3] and rois.restore.tolist() == [1, 0, 1]
    assert torch.equal(rois.restored(rois.boxes)[2], proposals[0])
    every = given_rois(proposals, index=0, scale=2.0, dedup=0.0)
    assert every.restore is None and torch.equal(every.rois[:, 1:], 2 * proposals)


def test_an_image_without_proposals_or_size_is_told():
    stored = StoredProposals([np.array([[0, 0, 9, 9], [0, 0, 1, 9]], np.float32)], [7], "p.pkl")
    assert stored.of_images(coco_of(height=8, width=20), 0)[7].tolist() == [[0, 0, 9, 7]]
    with pytest.raises(InputError, match=r"image 7 of the annotations has no size"):
        stored.of_images(coco_of(), 0)
    with pytest.raises(InputError, match=r"^p.pkl holds no proposals for image 7"):
        StoredProposals([], [], "p.pkl").of_images(coco_of(height=8, width=20), 0)
