"""The ways out that a sentence about a weights file names are followed on the command line, and work."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.helpers.command_line import Run
from tests.helpers.facsimile import BN_50, NARROW, Blobs, baseline, detector, january, without_momenta

SMALL = ("--set", "TEST.SCALE", "64", "TEST.MAX_SIZE", "96", "TEST.SCORE_THRESH", "0.02")
OWN: tuple[str, ...] = ()
GIVEN = ("--config", BN_50, "--set", *NARROW)


def trained(name: str, *shape: int) -> Blobs:
    return {name: np.ones(shape, np.float32), f"{name}_momentum": np.ones(shape, np.float32)}


@pytest.mark.parametrize("given", [OWN, GIVEN], ids=["its own configuration", "--config"])
@pytest.mark.parametrize(
    "more",
    [
        trained("fpn_7_w", 4, 4, 3, 3),
        trained("kps_score_w", 4, 4),
        trained("conv_rpn_w", 4, 4, 3, 3),
        {"res2_0_branch2a_gn_s": np.ones(4, np.float32)},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_file_with_more_than_its_configuration_has(
    more: Blobs, given: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    path, picture, out = tmp_path / "model_final.pkl", tmp_path / "picture.png", tmp_path / "out"
    blobs = baseline(BN_50) if len(more) == 2 else without_momenta(baseline(BN_50))
    detector(lambda: blobs | more, lambda: january(BN_50))(path)
    cv2.imwrite(str(picture), np.random.RandomState(0).randint(0, 255, (60, 80, 3)).astype(np.uint8))
    command = ("detect", path, picture, "--out", out, *given, *SMALL)
    code, _, errors = run(*command)
    sentence = errors.splitlines()[-1]
    assert code == 2 and f"was trained with {next(iter(more))}" in sentence
    assert "e2e_" not in sentence and "pass --keep-unused" in sentence
    assert not out.exists() or not list(out.iterdir())
    code, _, errors = run(*command, "--keep-unused")
    assert code == 0, errors
