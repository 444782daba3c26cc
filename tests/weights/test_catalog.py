"""The catalog holds what Detectron published, number by number."""

from pathlib import Path

import pytest

from detectron_gn.weights.catalog import catalog, lookup, rows, table
from detectron_gn.weights.errors import UnknownModel

# id: schedule, box AP, mask AP, memory, s/iter, hours, inference; from projects/GN/README.md and MODEL_ZOO.md.
PUBLISHED = {
    48616381: ("2x", 40.3, 35.7, 10.5, 1.017, 50.8, "0.146 + 0.017"),
    48616724: ("2x", 41.8, 36.8, 12.4, 1.151, 57.5, "0.180 + 0.015"),
    48734751: ("3x", 40.8, 36.1, 10.5, 1.033, 77.4, "0.145 + 0.015"),
    48734779: ("3x", 42.3, 37.2, 12.4, 1.171, 87.9, "0.180 + 0.014"),
    56421872: ("3x", 39.5, 35.2, 10.8, 1.087, 81.5, "0.140 + 0.019"),
    56421911: ("3x", 41.0, 36.4, 12.7, 1.243, 93.2, "0.177 + 0.019"),
    49025460: ("3x", 36.2, 32.5, 10.5, 0.990, 74.3, "0.146 + 0.020"),
    49024951: ("3x", 37.5, 33.3, 12.4, 1.124, 84.3, "0.180 + 0.019"),
    35859007: ("2x", 38.6, 34.5, 8.6, 0.897, 44.9, "0.099 + 0.018"),
    35861858: ("2x", 40.9, 36.4, 10.2, 0.993, 49.7, "0.126 + 0.017"),
}
URL_OF_48616381 = (
    "https://dl.fbaipublicfiles.com/detectron/GN/48616381/04_2018_gn_baselines/"
    "e2e_mask_rcnn_R-50-FPN_2x_gn_0416.13_23_38.bTlTI97Q/output/train/"
    "coco_2014_train%3Acoco_2014_valminusminival/generalized_rcnn/model_final.pkl"
)


@pytest.mark.parametrize("model", PUBLISHED)
def test_detectors_have_their_published_numbers(model: int) -> None:
    entry = lookup(model)
    numbers = (entry.schedule, entry.box_ap, entry.mask_ap, entry.train_memory_gb, entry.train_seconds_per_iteration)
    assert (*numbers, entry.train_hours, entry.inference_seconds_per_image) == PUBLISHED[model]


def test_twelve_models_of_which_eight_have_files() -> None:
    entries = catalog().entries
    assert len(entries) == 12
    assert {entry.id for entry in entries if entry.state == "result only"} == {56421872, 56421911, 49025460, 49024951}
    assert all((entry.path is None) == (entry.state == "result only") for entry in entries)


def test_imagenet_backbones_have_their_top_1_errors() -> None:
    assert (lookup(47261647).top1_error, lookup(47592356).top1_error) == (24.0, 22.6)
    assert lookup(47261647).path == "ImageNetPretrained/47261647/R-50-GN.pkl"


def test_path_is_the_published_url() -> None:
    assert f"{catalog().base_url}/{lookup(48616381).path}" == URL_OF_48616381
    masks = lookup(48616381).masks or ""
    assert masks.endswith("output/test/coco_2014_minival/generalized_rcnn/segmentations_coco_2014_minival_results.json")


def test_bn_models_have_no_gn_folder_and_one_known_md5() -> None:
    assert (lookup(35859007).path or "").startswith("35859007/12_2017_baselines/")
    assert lookup(35861858).md5 == "3ae556bf3de044a56eb3ecb66fea5cda"


def test_every_config_is_a_file_of_yaml_configs() -> None:
    folder = Path(__file__).resolve().parents[2] / "yaml_configs"
    for entry in catalog().entries:
        assert entry.config is None or (folder / entry.config).is_file(), entry.config


def test_struck_out_runs_tell_the_history_of_freeze_at() -> None:
    for old, new in (49025460, 56421872), (49024951, 56421911):
        note = lookup(old).note or ""
        assert lookup(old).superseded_by == new
        assert "FREEZE_AT" in note and "f8ffc87" in note and str(lookup(new).box_ap) in note


@pytest.mark.parametrize(
    "source",
    [
        48616381, "48616381", "  48616381\n", "e2e_mask_rcnn_R-50-FPN_2x_gn", "E2E_MASK_RCNN_r-50-fpn_2x_GN",
        URL_OF_48616381, URL_OF_48616381.replace("%3A", ":"),
        URL_OF_48616381.replace("https://dl.fbaipublicfiles.com", "https://s3-us-west-2.amazonaws.com"),
        URL_OF_48616381.replace("output/train/coco_2014_train%3Acoco_2014_valminusminival/generalized_rcnn/model_final.pkl",
                                "output/test/coco_2014_minival/generalized_rcnn/bbox_coco_2014_minival_results.json"),
    ],
)  # fmt: skip
def test_lookup_takes_ids_names_and_urls(source: int | str) -> None:
    assert lookup(source).id == 48616381


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("48616382", "did you mean 48616381"),
        ("R-50-GNN", "did you mean 47261647, R-50-GN"),
        ("", "`models` lists them"),
        ("https://example.org/48616381", "is no model of the catalog"),
    ],
)
def test_unknown_model_is_one_sentence_with_a_hint(source: str, words: str) -> None:
    with pytest.raises(UnknownModel, match=words):
        lookup(source)


def test_table_shows_every_model_and_what_result_only_means() -> None:
    text = table()
    assert all(str(entry.id) in text and entry.name in text for entry in catalog().entries)
    assert "no file was ever published" in text
    assert [row["id"] for row in rows()] == [entry.id for entry in catalog().entries]
