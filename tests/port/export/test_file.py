"""The exported file: operators, weights and metadata, large weights, pictures of all shapes, and AP."""

import hashlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from detectron_gn import load
from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import score
from detectron_gn.port.config.read import parse_config
from detectron_gn.port.export.check import all_agree, compare
from detectron_gn.port.export.metadata import metadata_of, source_facts
from detectron_gn.port.export.onnx_model import onnx_model
from detectron_gn.port.export.runtimes import OnnxDetector, ProgramDetector
from detectron_gn.port.export.torch_program import PaddedSize, write_program
from detectron_gn.port.export.write import write_onnx
from detectron_gn.weights import read_blobs
from tests.helpers.exported import run_session, session_of
from tests.helpers.zoo_reference import zoo_model

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "onnx_detect.py"
# Height and width, portrait and landscape; shapes from a tall strip to a wide one.
SIZES = [
    (180, 155), (155, 180), (427, 640), (640, 427), (90, 300), (300, 90), (160, 160), (64, 64), (1000, 700), (31, 47),
]  # fmt: skip


@pytest.fixture(scope="module")
def model(pickle: Path) -> Detector:
    return load(pickle, device="cpu")


@pytest.fixture(scope="module")
def file(model: Detector, pickle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert write_onnx(model, path, "image", source_facts(pickle)) == [path]
    return path


@pytest.fixture(scope="module")
def pictures(demo_model: Path) -> list[npt.NDArray[np.uint8]]:
    """One picture in ten sizes."""
    image = cv2.imread(str(demo_model / "val" / "000000300004.png"))
    return [np.asarray(cv2.resize(image, (width, height)), np.uint8) for height, width in SIZES]


def test_a_file_has_standard_operators_alone_and_passes_onnxs_checker(file: Path) -> None:
    held = onnx.load(file)
    onnx.checker.check_model(held, full_check=True)
    assert [(each.domain, each.version) for each in held.opset_import] == [("", 17)]
    graphs = [held.graph]
    domains, kinds = set(), set()
    while graphs:
        for node in graphs.pop().node:
            domains.add(node.domain)
            kinds.add(node.op_type)
            graphs += [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
    assert domains == {""} and {"RoiAlign", "NonMaxSuppression", "TopK"} <= kinds


def test_the_weights_are_the_files_blobs_by_name_and_bit(file: Path, pickle: Path) -> None:
    blobs = read_blobs(pickle).blobs
    held = {each.name: numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer}
    wanted = {name for name in blobs if not name.endswith("_momentum") and name not in ("lr", "weight_order")}
    for name in wanted:
        # GroupNorm's scales and shifts lie there as columns, the mask logits without their window.
        (found,) = [array for own, array in held.items() if own.partition(":")[0] == name]
        assert found.tobytes() == np.ascontiguousarray(blobs[name], np.float32).tobytes()


def test_a_file_says_what_it_is(file: Path, pickle: Path, model: Detector) -> None:
    said = onnxruntime.InferenceSession(str(file)).get_modelmeta().custom_metadata_map
    assert json.loads(said["class_names"]) == list(model.classes)
    assert parse_config(said["config"], "the file") == model.cfg
    assert said["source"] == pickle.name
    assert said["source_sha256"] == hashlib.sha256(pickle.read_bytes()).hexdigest()
    assert said["input"] == "image" and "CC BY-SA" in said["licence"] and said["detectron_gn_version"]
    assert "category_ids" not in said and said["mask_threshold"] == "0.5"
    assert json.loads(said["preprocessing"]) == {
        "channels": "BGR", "pixel_means": [102.9801, 115.9465, 122.7717], "scale": 160, "max_size": 256, "multiple": 32,
    }  # fmt: skip


def test_a_file_keeps_the_data_sets_ids_of_its_classes(model: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "categories", Categories(("disc", "square", "triangle", "ring"), (3, 1, 90, 7)))
    said = metadata_of(model, "blob", {})
    assert json.loads(said["category_ids"]) == [None, 3, 1, 90, 7]
    assert json.loads(said["class_names"]) == ["__background__", "disc", "square", "triangle", "ring"]


@pytest.mark.parametrize("form", ["image", "blob"])
def test_pictures_of_all_shapes_are_detected_alike(
    form: str, model: Detector, file: Path, pictures: list[npt.NDArray[np.uint8]], tmp_path: Path
) -> None:
    path = file
    if form == "blob":
        path = tmp_path / "blob.onnx"
        write_onnx(model, path, "blob", {})
    exported = OnnxDetector(path, threads=1)
    compared = [
        compare(str(image.shape), model.detect(image), exported.detect(model, image), model) for image in pictures
    ]
    assert all_agree(compared)
    assert all(each.box < 0.05 and each.score < 1e-3 for each in compared)
    assert [each.ours == each.exported for each in compared] == [True] * len(pictures)
    assert min(each.ours for each in compared[:4]) > 0


def test_a_picture_without_detections_gives_empty_outputs(pickle: Path, demo_model: Path) -> None:
    model = load(pickle, device="cpu", overrides=["TEST.SCORE_THRESH", "0.999999"])
    image = np.zeros((120, 170, 3), np.uint8)
    found = run_session(session_of(onnx_model(model)), image=image)
    assert len(model.detect(image)) == 0
    shapes = {name: array.shape for name, array in found.items()}
    assert shapes == {"boxes": (0, 4), "scores": (0,), "classes": (0,), "mask_probs": (0, 28, 28)}


def test_a_blob_file_clips_to_the_padded_image_where_its_size_is_left_out(model: Detector, demo_model: Path) -> None:
    made = onnx_model(model, "blob")
    casts = [each.i for node in made.graph.node if node.op_type == "Cast" for each in node.attribute]
    constants = [each.data_type for each in made.graph.initializer]
    assert onnx.TensorProto.DOUBLE not in casts + constants
    session = session_of(made)
    assert [each.name for each in session.get_inputs()] == ["data", "im_info"]
    assert [each.name for each in session.get_overridable_initializers()] == ["image_size"]
    image = cv2.imread(str(demo_model / "val" / "000000300004.png"))
    batch = model.network_input([image])
    feeds = {"data": batch.data.contiguous().numpy(), "im_info": np.array([batch.im_info[0]], np.float32)}
    found = run_session(session, **feeds)
    ours = model.detect(image)
    np.testing.assert_allclose(found["scores"], ours.scores, rtol=0, atol=1e-4)
    inside = ours.boxes[:, 2] < image.shape[1] - 2
    np.testing.assert_allclose(found["boxes"][inside], ours.boxes[inside], rtol=0, atol=0.01)


@pytest.mark.slow
def test_all_twelve_numbers_of_ap_are_caffe2s(model: Detector, file: Path, demo_model: Path) -> None:
    exported = OnnxDetector(file, threads=1)
    annotations = demo_model / "instances_val.json"
    ids = [each["id"] for each in json.loads(annotations.read_text())["categories"]]
    rows = []
    for path in sorted((demo_model / "val").iterdir()):
        rows += exported.detect(model, cv2.imread(str(path))).to_coco(int(path.stem), ids)
    reference = json.loads((demo_model / "ap.json").read_text())["coco_shapes_val"]
    boxes = [{key: row[key] for key in ("image_id", "category_id", "bbox", "score")} for row in rows]
    masks = [{key: row[key] for key in ("image_id", "category_id", "segmentation", "score")} for row in rows]
    for kind, iou_type, results in (("box", "bbox", boxes), ("mask", "segm", masks)):
        found = score(results, annotations, iou_type).metrics()
        assert found == pytest.approx(reference[kind], abs=1e-3)


def test_large_weights_lie_in_a_file_beside_it(model: Detector, tmp_path: Path, demo_model: Path) -> None:
    path = tmp_path / "large.onnx"
    assert write_onnx(model, path, "image", {}, largest=1_000_000) == [path, tmp_path / "large.onnx.data"]
    assert path.stat().st_size < 1_500_000 < (tmp_path / "large.onnx.data").stat().st_size
    onnx.checker.check_model(str(path))
    image = cv2.imread(str(demo_model / "val" / "000000300004.png"))
    found = OnnxDetector(path, threads=1).detect(model, image)
    assert len(found) == len(model.detect(image)) > 0


@pytest.mark.parametrize(
    ("key", "value"), [("TEST.NMS", "0.0"), ("TEST.RPN_POST_NMS_TOP_N", "0")]
)
def test_numbers_that_onnx_has_no_meaning_for_are_refused(key: str, value: str, pickle: Path) -> None:
    with pytest.raises(InputError, match=key):
        onnx_model(load(pickle, device="cpu", overrides=[key, value]))


def test_no_proposals_are_no_detections(pickle: Path) -> None:
    model = zoo_model(ROOT / "tests" / "data" / "zoo" / "fast_dedup.h5")
    none = {"image": np.zeros((60, 80, 3), np.uint8), "proposals": np.zeros((0, 4), np.float32)}
    assert run_session(session_of(onnx_model(model)), **none)["boxes"].shape == (0, 4)
    model = load(pickle, device="cpu", overrides=["TEST.RPN_MIN_SIZE", "5000"])
    found = run_session(session_of(onnx_model(model)), image=none["image"])
    assert found["boxes"].shape == (0, 4) and found["mask_probs"].shape == (0, 28, 28)


def test_augmentation_is_refused_with_the_way_out(model: Detector, pickle: Path) -> None:
    with pytest.raises(InputError, match="looks at an image once") as told:
        onnx_model(load(pickle, device="cpu", overrides=["TEST.BBOX_AUG.ENABLED", "True"]))
    overrides = str(told.value).rpartition("--set ")[2].split()
    onnx_model(load(pickle, device="cpu", overrides=["TEST.BBOX_AUG.ENABLED", "True", *overrides]))
    with pytest.raises(InputError, match="fp32"):
        onnx_model(load(pickle, device="cpu", precision="bf16"))


def test_the_example_pastes_masks_to_the_pixel_and_needs_nothing_of_ours(
    model: Detector, file: Path, demo_model: Path, tmp_path: Path
) -> None:
    photo = demo_model / "val" / "000000300004.png"
    code = (
        f"import runpy, sys, cv2, numpy as np; sys.argv = ['x', {str(file)!r}, {str(photo)!r}, 'out.png']\n"
        f"told = runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')\n"
        f"image = told['read_picture']({str(photo)!r}); session, _ = told['open_network']({str(file)!r})\n"
        "found = told['detect'](session, image)\n"
        "pairs = zip(found['mask_probs'], found['boxes'])\n"
        "masks = [told['paste'](*each, *image.shape[:2]) for each in pairs]\n"
        "np.save('masks.npy', np.array(masks)); print([m for m in ('detectron_gn', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    ours = model.detect(photo).above(0.5).by_score()
    assert lines[:-2] == [
        f"{score:.4f} class {label}: {' '.join(f'{corner:.1f}' for corner in box)}"
        for score, label, box in zip(ours.scores, ours.classes, ours.boxes, strict=True)
    ]
    assert lines[-2:] == [f"{len(ours)} of 7 detections score 0.5 or more and are drawn in out.png", "[]"]
    masks = np.load(tmp_path / "masks.npy")
    assert len(masks) == 7 and np.array_equal(masks, model.detect(photo).masks())
    drawn, image = cv2.imread(str(tmp_path / "out.png")), cv2.imread(str(photo))
    assert drawn.shape == image.shape and (drawn != image).any(axis=2).sum() > masks.any(axis=0).sum() / 2


def test_the_example_says_what_is_wrong_in_a_sentence(
    file: Path, demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLE))["main"]
    photo, text, cut, out = demo_model / "val" / "000000300004.png", tmp_path / "a.txt", tmp_path / "cut.onnx", "o.png"
    text.write_text("no picture")
    cut.write_bytes(file.read_bytes()[:100_000])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "other", values[:1], values[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "other.onnx")
    wrong = {
        "give three names": [file, photo],
        "absent.onnx cannot be read": ["absent.onnx", photo, out],
        "a.txt is no ONNX file": [text, photo, out],
        "cut.onnx is no ONNX file": [cut, photo, out],
        "other.onnx takes no image": [tmp_path / "other.onnx", photo, out],
        "absent.png cannot be read": [file, "absent.png", out],
        "a.txt is no picture": [file, text, out],
        "has no ending of a picture": [file, photo, tmp_path / "drawing"],
        "xyz has no ending of a picture": [file, photo, tmp_path / "drawing.xyz"],
        "there is no such folder": [file, photo, tmp_path / "absent" / "o.png"],
    }
    for sentence, arguments in wrong.items():
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        errors = capsys.readouterr().err
        assert ended.value.code == 2 and sentence in errors and errors.count("\n") == 1, errors


@pytest.mark.slow
def test_a_torch_program_of_every_size_runs_in_torch_alone(model: Detector, demo_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    write_program(model, path, None, {"source": "x"})
    exported = ProgramDetector(path)
    images = [cv2.imread(str(each)) for each in sorted((demo_model / "val").iterdir())[:4]]
    compared = [compare("", model.detect(image), exported.detect(model, image), model) for image in images]
    assert all_agree(compared) and len({model.network_input([image]).data.shape for image in images}) > 2
    batch = model.network_input(images[:1])
    torch.save([batch.data.contiguous(), torch.tensor([batch.im_info[0]]), torch.tensor(images[0].shape[:2]).float()],
               tmp_path / "inputs.pth")  # fmt: skip
    code = (
        "import sys, torch; data, im_info, image_size = torch.load('inputs.pth')\n"
        "found = torch.export.load('model.pt2').module()(data=data, im_info=im_info, image_size=image_size)\n"
        "print(int(found['count']), bool(found['complete']), 'detectron_gn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(model.detect(images[0]))} True False\n"


def test_a_torch_program_of_one_size_refuses_another_and_other_networks_are_refused(
    model: Detector, pickle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    write_program(model, path, PaddedSize(160, 256), {})
    program = torch.export.load(path).module()
    given = {"im_info": torch.tensor([[160.0, 256, 1]]), "image_size": torch.tensor([160.0, 256])}
    assert program(data=torch.zeros(1, 3, 160, 256), **given)["boxes"].shape == (model.cfg.TEST.DETECTIONS_PER_IM, 4)
    with pytest.raises(Exception, match="size|shape"):
        program(data=torch.zeros(1, 3, 192, 256), **given)
    with pytest.raises(InputError, match="multiples of 32"):
        write_program(model, path, PaddedSize(100, 256), {})
    soft = load(pickle, device="cpu", overrides=["TEST.SOFT_NMS.ENABLED", "True"])
    with pytest.raises(InputError, match="export it to .onnx"):
        write_program(soft, tmp_path / "soft.pt2", None, {})
    assert not (tmp_path / "soft.pt2").exists()
