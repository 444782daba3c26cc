"""The catalog holds what Detectron published, number by number."""

from pathlib import Path

import pytest

from detectron_gn.weights.catalog import catalog, chosen, families, lookup, rows, table
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


# Other families, as the published tables print them.
OF_EVERY_FAMILY = {
    35857890: ("Faster R-CNN", "1x", 2, 8.9, 0.647, 16.2, "0.120 + 0.004", {"box_ap": 39.4}),
    36224121: ("Mask R-CNN on precomputed proposals", "1x", 1, 6.4, 0.466, 23.3, "0.252 + 0.020",
               {"box_ap": 35.5, "mask_ap": 31.3, "proposals_of": 35998355}),
    36226326: ("Fast R-CNN on precomputed proposals", "2x", 1, 6.3, 0.980, 98.0, "0.291 + 0.003",
               {"box_ap": 39.8, "proposals_of": 35998956}),
    36768636: ("RetinaNet", "1x", 2, 6.8, 0.483, 12.1, "0.125", {"box_ap": 35.7}),
    35998814: ("RPN", "1x", 2, 6.4, 0.416, 10.4, "0.080", {"proposal_ar": 57.2}),
    37732318: ("Keypoint R-CNN", "s1x", 2, 14.2, 1.408, 50.8, "0.236 + 0.075", {"box_ap": 56.9, "keypoint_ap": 67.0}),
    37651887: ("Keypoint R-CNN on precomputed proposals", "s1x", 2, 7.7, 0.533, 19.2, "0.080 + 0.085",
               {"box_ap": 53.4, "keypoint_ap": 65.5, "proposals_of": 35998996}),
    37129812: ("Mask R-CNN", "s1x", 1, 9.6, 1.188, 85.8, "12.100 + 0.046", {"box_ap": 48.1, "mask_ap": 41.5}),
}  # fmt: skip
FILES_OF_OTHERS = {
    "model of 35998355": "12_2017_baselines/rpn_R-50-C4_1x.yaml.08_00_43.njH5oD9L/output/train/"
    "coco_2014_train%3Acoco_2014_valminusminival/rpn/model_final.pkl",
    "proposals of 35998355": "12_2017_baselines/rpn_R-50-C4_1x.yaml.08_00_43.njH5oD9L/output/test/"
    "coco_2014_minival/rpn/rpn_proposals.pkl",
    "boxes of 36768636": "12_2017_baselines/retinanet_R-50-FPN_1x.yaml.08_29_48.t4zc9clc/output/test/"
    "coco_2014_minival/retinanet/detections_coco_2014_minival_results.json",
    "keypoints of 37697547": "12_2017_baselines/e2e_keypoint_rcnn_R-50-FPN_1x.yaml.08_42_54.kdzV35ao/output/test/"
    "keypoints_coco_2014_minival/generalized_rcnn/keypoints_keypoints_coco_2014_minival_results.json",
    "model of 35998996": "12_2017_baselines/rpn_person_only_R-50-FPN_1x.yaml.08_10_08.0ZWmJm6F/output/train/"
    "keypoints_coco_2014_train%3Akeypoints_coco_2014_valminusminival/generalized_rcnn/model_final.pkl",
}


@pytest.mark.parametrize("model", OF_EVERY_FAMILY)
def test_every_family_has_its_published_numbers(model: int) -> None:
    entry = lookup(model)
    family, schedule, images, memory, seconds, hours, inference, numbers = OF_EVERY_FAMILY[model]
    assert (entry.family, entry.schedule, entry.images_per_gpu, entry.train_memory_gb) == (
        family, schedule, images, memory
    )  # fmt: skip
    assert (entry.train_seconds_per_iteration, entry.train_hours) == (seconds, hours)
    assert entry.inference_seconds_per_image == inference
    assert {name: getattr(entry, name) for name in numbers} == numbers


@pytest.mark.parametrize("what", FILES_OF_OTHERS)
def test_files_of_other_families_lie_where_they_were_published(what: str) -> None:
    word, model = what.split(" of ")
    path = f"{model}/{FILES_OF_OTHERS[what]}"
    assert lookup(model).files[word][-1] == path
    assert lookup(f"{catalog().base_url}/{path}").id == int(model)


def test_every_model_of_the_zoo_and_of_the_gn_page_is_there() -> None:
    entries = catalog().entries
    count = {family: sum(entry.family == family for entry in entries) for family in {e.family for e in entries}}
    assert count == {
        "ImageNet backbone": 7,
        "Mask R-CNN": 19,
        "Faster R-CNN": 10,
        "RetinaNet": 8,
        "Keypoint R-CNN": 8,
        "RPN": 9,
        "Fast R-CNN on precomputed proposals": 10,
        "Mask R-CNN on precomputed proposals": 10,
        "Keypoint R-CNN on precomputed proposals": 8,
    }
    assert {entry.id for entry in entries if entry.state == "result only"} == {56421872, 56421911, 49025460, 49024951}
    assert all((entry.path is None) == (entry.state == "result only") for entry in entries)
    names = [name for entry in entries for name in entry.names]
    assert len(set(names)) == len(names)


def test_the_proposals_of_a_model_are_those_of_the_rpn_with_the_same_backbone() -> None:
    for entry in catalog().entries:
        if entry.proposals_of is not None:
            rpn = lookup(entry.proposals_of)
            assert (rpn.kind, rpn.backbone, len(rpn.proposals)) == ("RPN", entry.backbone, 3)
            assert ("person" in rpn.name) == (entry.kind == "Keypoint R-CNN")


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
    entries = catalog().entries
    text = table(entries)
    assert all(name in text for entry in entries for name in entry.names)
    assert "no file was ever published" in text
    assert [row["id"] for row in rows(entries)] == [entry.id for entry in entries]
    assert max(map(len, text.splitlines())) <= 80
    assert "Mask R-CNN (files: model, boxes, masks)\n" in text
    assert "The files belong to their authors, under CC BY-SA 3.0." in text
    rows_of = {line.split()[0]: line for line in text.splitlines() if line[:8].isdigit()}
    assert rows_of["48616381"].endswith(" all") and rows_of["56421872"].endswith(" none")
    assert "e2e_keypoint_rcnn_R-50-FPN_1x * " in rows_of["37697547"]
    assert "\n* The numbers are for the category person only.\n" in text
    assert "\n37129812: With test-time augmentation" in text


def test_a_table_of_models_without_a_file_promises_none() -> None:
    text = table(chosen(None, "freeze2"))
    assert text.startswith("Mask R-CNN\n")
    assert [line[-4:] for line in text.splitlines()[3:5]] == ["none", "none"]
    assert "files belong" not in text


@pytest.mark.parametrize(
    ("kind", "search", "ids"),
    [
        ("mask-rcnn", "gn r-101 published", [48616724, 48734779]),
        ("MASK RCNN", "GN 2x", [48616381, 48616724]),
        (None, "36224013", [36224013]),
        ("rpn", "person x-101-32", [36760438]),
        ("retinanet", "R-50", [36768636, 36768677]),
    ],
)
def test_models_are_chosen_by_family_and_words(kind: str | None, search: str, ids: list[int]) -> None:
    assert [entry.id for entry in chosen(kind, search)] == ids


@pytest.mark.parametrize(("kind", "search"), [("r-fcn", None), (None, "R-200"), ("rpn", "GN"), ("mask", None)])
def test_a_choice_without_a_model_is_an_error_that_names_the_families(kind: str | None, search: str | None) -> None:
    with pytest.raises(UnknownModel, match=f"the families are {families()[0]}"):
        chosen(kind, search)
