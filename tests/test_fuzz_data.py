"""Strange and damaged annotations, results, configurations and pictures: a share of fuzz_data."""

from pathlib import Path

import pytest

from benchmarks import fuzz_data, fuzzing
from benchmarks.fuzz_data import KINDS
from detectron_gn.mrcnn.evaluation.ap import score

SEED = 20180416
# Of pycocotools, with today's numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__")


@pytest.mark.parametrize(
    ("kind", "files"), [("annotations", 600), ("results", 2000), ("yaml", 300), ("pictures", 3000)]
)
def test_files_are_read_as_the_real_reader_reads_them_or_refused(kind: str, files: int, tmp_path: Path) -> None:
    report = fuzzing.run(kind, KINDS[kind], SEED, tmp_path, files)
    assert report.findings == [] and report.files == files
    assert report.slowest_seconds < 5 and report.most_memory < 100 << 20
    assert set(report.outcomes) == {"read", "InputError"}
    assert report.compared - report.only_ours > files / 10


@pytest.mark.parametrize(
    ("kind", "name", "altered"),
    [
        ("annotations", "encode_masks", lambda index: index.dataset["annotations"][0].update(segmentation=[])),
        ("results", "score", lambda path, truth, iou_type: score(path, truth, iou_type, 1)),
        ("yaml", "load_yaml", lambda text, source: fuzzing.run),
        ("pictures", "read_image", lambda path, reading: (_ for _ in ()).throw(KeyError(256))),
    ],
)
def test_what_is_read_otherwise_is_a_finding(
    kind: str, name: str, altered: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_data, name, altered)
    assert fuzzing.run(kind, KINDS[kind], 1, tmp_path, 60).findings
