"""Faults of a port that several tests inject: `verify training` must find each."""

import pytest

from detectron_gn.mrcnn.data import minibatch, proposal_matches
from detectron_gn.mrcnn.training import keypoint_targets


def unswapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left and right keep their places in a mirrored image."""
    flip = minibatch.flip_keypoints
    monkeypatch.setattr(minibatch, "flip_keypoints", lambda points, width, _: flip(points, width, range(17)))


def people_without_keypoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """RoIs that hold no visible keypoint are drawn for their keypoints, too."""
    monkeypatch.setattr(keypoint_targets, "_holds_visible", lambda keypoints, boxes: boxes[:, 0] > -1)


def unclipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proposals reach beyond the right and the lower edge of the image."""
    usable, vast = proposal_matches.usable_proposals, 10**6
    monkeypatch.setattr(proposal_matches, "usable_proposals", lambda boxes, *_, limit: usable(boxes, vast, vast, limit))


def no_crowd_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a crowd covers is background."""
    match = proposal_matches.match_stored_proposals

    def unfiltered(stored, gt_boxes, is_crowd, *others):  # type: ignore[no-untyped-def]
        return match(stored, gt_boxes, is_crowd & False, *others)

    monkeypatch.setattr(minibatch, "match_stored_proposals", unfiltered)
