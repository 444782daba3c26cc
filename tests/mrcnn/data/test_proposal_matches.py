"""Proposals from files become a roidb's: fit for the image, matched with objects, kept from crowds, mirrored."""

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.minibatch import entry_proposals, load_minibatch
from detectron_gn.mrcnn.data.proposal_matches import match_stored_proposals
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.data.roidb import check_proposals, training_roidb
from detectron_gn.mrcnn.errors import InputError

FAST = with_values(Config(), {"MODEL.NUM_CLASSES": 3, "MODEL.FASTER_RCNN": False, "TRAIN.SCALES": (60,)})
FASTER = with_values(FAST, {"MODEL.FASTER_RCNN": True})

OBJECT, CROWD = [10.0, 10.0, 29.0, 29.0], [40.0, 0.0, 79.0, 59.0]
BOXES, IS_CROWD = np.array([OBJECT, CROWD], np.float32), np.array([False, True])


def match(*boxes, **train):
    cfg = with_values(FAST, {f"TRAIN.{key}": value for key, value in train.items()})
    return match_stored_proposals(np.array(boxes, np.float32).reshape(-1, 4), BOXES, IS_CROWD, 60, 80, cfg)


def test_boxes_are_clipped_told_apart_and_kept_when_large_enough():
    found = match([-9, -9, 29, 29], [0, 0, 29.2, 29.2], [5, 5, 6, 30], [70, 50, 99, 99])
    assert found.boxes.tolist() == [[0, 0, 29, 29], [70, 50, 79, 59]]


def test_each_box_has_the_object_that_it_overlaps_most_with_crowds_among_them():
    found = match([10, 10, 29, 19], [40, 0, 79, 29], [0, 0, 5, 5], CROWD_FILTER_THRESH=0.0)
    assert found.overlaps.tolist() == [0.5, 0.5, 0.0] and found.best_gt.tolist() == [0, 1, 0]


@pytest.mark.parametrize(("threshold", "kept"), [(0.7, [0.5, -1.0, 0.2]), (0.5, [0.5, -1.0, -1.0])])
def test_what_a_crowd_covers_is_neither_object_nor_background(threshold, kept):
    """Of a box's own area: the second lies within the crowd, and of the third 12 of 20 columns do."""
    boxes = [10, 10, 29, 19], [45, 5, 54, 14], [32, 0, 51, 59]
    found = match(*boxes, CROWD_FILTER_THRESH=threshold)
    assert (found.overlaps < 0).tolist() == [overlap < 0 for overlap in kept]
    assert found.overlaps[0] == 0.5


def test_an_image_of_nothing_has_background_alone():
    none = np.zeros((0, 4), np.float32)
    found = match_stored_proposals(np.array([OBJECT], np.float32), none, np.zeros(0, bool), 60, 80, FAST)
    assert found.overlaps.tolist() == [0.0] and found.best_gt.tolist() == [0]


def stored(ids, *boxes):
    return StoredProposals([np.array(each, np.float32).reshape(-1, 4) for each in boxes], list(ids), "p.pkl")


def test_images_of_nothing_are_trained_on_where_proposals_are_their_background(write_dataset, annotation):
    images = dict.fromkeys((1, 2, 3), (60, 80))
    dataset = read_dataset(*write_dataset(images, [annotation()]))
    proposals = stored([3, 1, 2], [[0, 0, 9, 9]], [], [])
    roidb = training_roidb([dataset], with_values(FAST, {"TRAIN.USE_FLIPPED": False}), [proposals])
    # The second has no proposal either.
    assert [entry.image.name for entry in roidb] == ["1.png", "3.png"]
    assert len(training_roidb([dataset], with_values(FASTER, {"TRAIN.USE_FLIPPED": False}))) == 1


def test_a_mirrored_image_has_mirrored_proposals_with_the_same_overlaps(write_dataset, annotation):
    dataset = read_dataset(*write_dataset({1: (60, 80)}, [annotation()]))
    roidb = training_roidb([dataset], FAST, [stored([1], [[10, 10, 29, 19], [70, 0, 99, 9]])])
    plain, mirrored = (entry_proposals(entry, FAST) for entry in roidb)
    assert mirrored.boxes.tolist() == [[50, 10, 69, 19], [0, 0, 9, 9]]
    assert torch.equal(plain.overlaps, mirrored.overlaps) and plain.overlaps[0] > 0.4
    loaded = load_minibatch(roidb, [60, 60], FAST).proposals
    assert [each.boxes.tolist() for each in loaded] == [plain.boxes.tolist(), mirrored.boxes.tolist()]


def test_each_data_set_has_a_file_and_each_image_its_proposals(write_dataset, annotation):
    dataset = read_dataset(*write_dataset({1: (60, 80), 2: (60, 80)}, [annotation(), annotation(image_id=2)]))
    with pytest.raises(InputError, match=r"p\.pkl holds no proposals for image 2"):
        training_roidb([dataset], FAST, [stored([1], [])])
    both = stored([1, 2], [], [])
    check_proposals([dataset, dataset], FAST, [both, both])
    check_proposals([dataset], FASTER, [])
    with pytest.raises(InputError, match="there are 1 for 2: give --proposals .* as often as --annotations"):
        check_proposals([dataset, dataset], FAST, [both])
    with pytest.raises(InputError, match="a Faster R-CNN makes its own proposals or needs none: leave --proposals out"):
        check_proposals([dataset], FASTER, [both])
