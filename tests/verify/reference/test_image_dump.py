"""A damaged reference, or one of another model, is refused in one sentence that names file, image and dataset."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.runs.load import load_model
from detectron_gn.verify.diagnosis.diagnose import diagnose
from detectron_gn.verify.parity.blobs import compare_image, parity_holds
from detectron_gn.verify.reference.image_dump import read_references, reference_names
from tests.helpers.zoo_reference import zoo_config, zoo_files

NAME = "000000300000.png"


@pytest.fixture(scope="module")
def cfg(pickle):
    return load_model(pickle, device="cpu").cfg


@pytest.fixture
def copy(demo_model, tmp_path):
    """A copy of the embedded reference that may be written to."""
    path = tmp_path / "copy.h5"
    shutil.copyfile(demo_model / "blobs.h5", path)
    path.chmod(0o644)
    return path


def replaced(path, key, change):
    """Put what `change` makes of a dataset's values in its place, attributes as they were."""
    with h5py.File(path, "r+") as file:
        for group in file.values():
            attributes, values = dict(group[key].attrs), change(group[key][:])
            del group[key]
            group[key] = values
            group[key].attrs.update(attributes)


def test_the_embedded_reference_is_read(demo_model, cfg):
    path = demo_model / "blobs.h5"
    assert reference_names(path) == [NAME, "000000300007.png"]
    first = next(read_references(path, demo_model / "val", cfg))
    assert first.image_size == (180, 155) and len(first.blobs) == 343
    assert first.blobs["rois"].is_whole and not first.blobs["data"].is_whole
    assert first.blobs["data"].shape == (1, 3, 192, 160)
    assert int((~first.blobs["data"].known().isnan()).sum()) == len(first.blobs["data"].values)


@pytest.mark.parametrize("key", ["boxes", "blobs", "blobs/rois", "rle_counts", "masks_of_class", "det_scores"])
def test_what_is_lacking_is_named(copy, demo_model, cfg, key):
    with h5py.File(copy, "r+") as file:
        for group in file.values():
            del group[key]
    with pytest.raises(InputError, match=f"copy.h5: {NAME} lacks .*{key.split('_of')[0]}.*dump_blobs.py"):
        list(read_references(copy, demo_model / "val", cfg))


@pytest.mark.parametrize(
    ("key", "change", "sentence"),
    [
        ("det_scores", lambda v: v[:-1], "det_boxes has 5 rows, det_scores 4"),
        ("det_classes", lambda v: v[:-1], "det_classes has 4 rows"),
        ("det_classes", lambda v: v + 4, "det_classes holds other classes than the model's, which are 1 to 4"),
        ("det_boxes", lambda v: v[:, :3], r"det_boxes is 5x3, not \[D, 4\]"),
        ("det_boxes", lambda v: v * np.nan, "det_boxes holds values that are not finite"),
        ("det_scores", lambda v: v * np.nan, "det_scores holds values that are not finite"),
        ("masks_of_class", lambda v: v[:-1], "masks_of_class has 4 rows"),
        ("masks_of_class", lambda v: v[:, :14, :14], "masks_of_class is 5x14x14"),
        ("rle_counts", lambda v: v[:-1], "rle_counts has 4 rows"),
        ("rle_counts", lambda v: np.array(["\u00e9".encode()] * len(v)), "rle_counts is damaged: row 0"),
        ("rle_counts", lambda v: np.array([b"PP`1"] * len(v)), "row 0 does not make up the 180x155 pixels"),
        ("rle_counts", lambda v: np.arange(len(v)), "rle_counts is damaged"),
        ("scores", lambda v: v[:, :3], r"scores is 824x3, not \[R, 5\]"),
        ("boxes", lambda v: v[:-3], "boxes has 821 rows, scores 824"),
        ("blobs/rois", lambda v: v.reshape(-1), "blobs/rois is 4120, not"),
        ("blobs/rois", lambda v: v[:, 1:], "blobs/rois is 824x4, not"),
        ("blobs/rois", lambda v: v[:0], "blobs/rois has 0 rows"),
        ("blobs/rois", lambda v: np.float32(1), "blobs/rois is a single value, not"),
        ("blobs/rois", lambda v: v + np.array([7, 0, 0, 0, 0]), "RoIs of other images than the first"),
        ("blobs/mask_rois", lambda v: v[:-1], "blobs/mask_rois has 4 rows"),
        ("blobs/rpn_rois_fpn2", lambda v: v.reshape(-1), "blobs/rpn_rois_fpn2 is"),
        ("blobs/rpn_rois_fpn2", lambda v: np.array([b"x"]), "blobs/rpn_rois_fpn2 holds .*, not numbers"),
        ("blobs/rpn_roi_probs_fpn2", lambda v: v[:-5], "blobs/rpn_roi_probs_fpn2 is"),
        ("blobs/conv1_gn_mean", lambda v: np.zeros(3, dtype=[("a", "f4")]), "conv1_gn_mean holds .*, not numbers"),
    ],
)
def test_a_dataset_of_another_shape_or_type_is_named(copy, demo_model, cfg, key, change, sentence):
    replaced(copy, key, change)
    way_out = r"(dump_blobs.py|another model\?)$"
    with pytest.raises(InputError, match=rf"copy.h5: {NAME}: .*({sentence}).*{way_out}") as refused:
        list(read_references(copy, demo_model / "val", cfg))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("stride", 7, "blob data is damaged: it holds .* values at stride 7"),
        ("stride", 0, "blob data is damaged"),
        ("stride", "x", "blobs/data cannot be read .its attribute stride is x"),
        ("stride", float("nan"), "its attribute stride is nan"),
        ("stride", [1, 2], "its attribute stride"),
        ("shape", "abc", "its attribute shape is abc"),
        ("shape", [-1, -3, 192, 160], "blob data is damaged"),
        ("l2", "long", "its attribute l2 is long"),
        ("l2", [1.0, 2.0], "its attribute l2"),
        ("l2", -1.0, "its attribute l2 is -1.0"),
    ],
)
def test_a_stride_or_shape_that_is_none_is_named(copy, demo_model, cfg, attribute, value, sentence):
    with h5py.File(copy, "r+") as file:
        for group in file.values():
            group["blobs/data"].attrs[attribute] = value
    with pytest.raises(InputError, match=f"copy.h5: {NAME}: .*{sentence}.*dump_blobs.py"):
        list(read_references(copy, demo_model / "val", cfg))


@pytest.mark.parametrize(
    "put",
    [
        lambda blobs: blobs.create_group("conv1"),
        lambda blobs: blobs.__setitem__("conv1", h5py.SoftLink("/nowhere")),
        lambda blobs: blobs.__setitem__("conv1", h5py.ExternalLink("no.h5", "/x")),
        lambda blobs: blobs.__setitem__("conv1", h5py.Empty("f")),
        lambda blobs: blobs.create_dataset("conv1", shape=(10**6, 10**6), chunks=(100, 100), dtype="f4"),
    ],
    ids=["group", "soft link", "external link", "nothing", "too many values"],
)
def test_what_is_no_blob_is_named(copy, demo_model, cfg, put):
    with h5py.File(copy, "r+") as file:
        for group in file.values():
            del group["blobs/conv1"]
            put(group["blobs"])
    with pytest.raises(InputError, match=f"copy.h5: {NAME}: blobs/conv1 "):
        list(read_references(copy, demo_model / "val", cfg))


def test_an_image_of_another_size_than_the_references_is_named(copy, demo_model, cfg):
    with h5py.File(copy, "r+") as file:
        for group in file.values():
            group.attrs["shape"] = (100, 100, 3)
    with pytest.raises(InputError, match="attribute shape is .* but the image in the folder is 180x155"):
        list(read_references(copy, demo_model / "val", cfg))


@pytest.mark.parametrize("seed", range(12))
def test_whatever_bytes_are_changed_the_file_is_read_or_refused(copy, demo_model, cfg, seed):
    random = np.random.RandomState(seed)
    data = bytearray(copy.read_bytes())
    # The first kilobytes hold the groups' own structures, which h5py trusts most.
    for place in random.randint(0, 60_000, size=(1, 30)[seed % 2]):
        data[place] = random.randint(256)
    copy.write_bytes(data)
    try:
        list(read_references(copy, demo_model / "val", cfg))
    except InputError as error:
        assert "copy.h5" in str(error) or "no such image file" in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [np.nan, np.inf])
@pytest.mark.parametrize("key", ["blobs/rois", "blobs/rpn_rois_fpn2", "blobs/rpn_roi_probs_fpn2", "blobs/mask_rois"])
def test_blobs_that_are_not_finite_agree_with_nothing(copy, demo_model, pickle, key, factor):
    columns = slice(1, None) if "rois" in key else slice(None)

    def change(values):
        values[:, columns] = factor
        return values

    replaced(copy, key, change)
    model = load_model(pickle, device="cpu")
    reference = next(read_references(copy, demo_model / "val", model.cfg))
    parity = compare_image(model, reference)
    finding = diagnose(model, parity, reference, 1e-3)
    assert not parity_holds(parity, 1e-3)
    rung = "detections" if "mask" in key else "proposals"
    assert finding is not None and finding.rung == rung and not finding.suspect


ZOO = Path(__file__).parents[2] / "data" / "zoo"


@pytest.mark.parametrize(
    ("reference", "of", "sentence"),
    [
        ("faster_x101", "keypoint", "this reference is of a Faster R-CNN, and the model is a Keypoint R-CNN: give the"),
        ("faster_x101", "mask_c4", "this reference is of a Faster R-CNN, and the model is a Mask R-CNN"),
        ("faster_x101", "rpn_fpn", "this reference is of a Faster R-CNN, and the model is an RPN"),
        ("faster_x101", "fast_fpn", "this reference is of a Faster R-CNN, and the model is a Fast R-CNN"),
        ("rpn_fpn", "faster_x101", "this reference is of an RPN, and the model is a Faster R-CNN"),
        ("fast_fpn", "keypoint", "this reference is of a Fast R-CNN, and the model is a Keypoint R-CNN"),
        ("mask_c4", "mask_c4_prop", "this reference is of a Mask R-CNN, and the model is a Mask R-CNN on proposals"),
    ],
)
def test_a_reference_of_another_family_is_called_so(demo_model, reference, of, sentence):
    with h5py.File(ZOO / f"{of}.h5") as file:
        cfg = zoo_config(file)
    with pytest.raises(InputError, match=f"{reference}.h5: .*: {sentence}"):
        list(read_references(ZOO / f"{reference}.h5", demo_model / "val", cfg))


@pytest.mark.parametrize("key", ["keypoints", "scores", "det_boxes"])
def test_a_damaged_reference_of_the_models_own_family_is_made_again(demo_model, tmp_path, key):
    path = tmp_path / "keypoint.h5"
    path.write_bytes((ZOO / "keypoint.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        cfg = zoo_config(file)
        names = [name for name in file if key in file[name]]
        for name in names[1:] if key == "det_boxes" else names:
            del file[name][key]
        if key == "det_boxes":
            file[names[0]]["proposals"] = np.zeros((1, 4))
            del file[names[0]][key]
    with pytest.raises(InputError, match=f"lacks {key}: make the reference again with dump_blobs.py"):
        list(read_references(path, demo_model / "val", cfg))


def test_a_reference_that_lost_its_blobs_is_not_called_another_familys(copy, demo_model, cfg):
    with h5py.File(copy, "r+") as file:
        for group in file.values():
            for name in list(group["blobs"]):
                if name != "data":
                    del group["blobs"][name]
    with pytest.raises(InputError, match="lacks blobs/rois: make the reference again with dump_blobs.py"):
        list(read_references(copy, demo_model / "val", cfg))


@pytest.mark.parametrize("command", ["blobs", "all"])
def test_a_reference_of_augmented_results_is_sent_to_the_command_that_compares_them(
    demo_model, tmp_path, command, run
):
    files = zoo_files(ZOO / "mask_c4.h5", tmp_path, "TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.H_FLIP", "True")
    path = tmp_path / "augmented.h5"
    path.write_bytes((ZOO / "mask_c4.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        for group in file.values():
            for key in {"blobs", "boxes", "scores", "masks", "masks_of_class"} & set(group):
                del group[key]
    arguments = [files.pickle, "--reference", path, "--images", demo_model / "val"]
    code, _, err = run("verify", command, *arguments, *(["--out", tmp_path / "out"] if command == "all" else []))
    assert code == 2 and "holds results and no blobs, as of a run with test-time augmentation" in err
    assert "`test` and `verify detections`" in err and "Traceback" not in err
