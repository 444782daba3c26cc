"""What torch writes down of the public modules is right at other sizes too, or is refused; never silently wrong."""

import io
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from detectron_gn import load
from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.structures import Features
from tests.helpers.zoo_reference import zoo_model

DATA = Path(__file__).parents[1] / "data" / "zoo"
Exported = Callable[..., list[Tensor]]


class Of(nn.Module):
    """A function of a model's as a module, its result as a flat tuple."""

    def __init__(self, model: nn.Module, run: Callable[..., object]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(flat(self.run(self.model, *inputs)))


def flat(result: object) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Features):
        return list(result.maps)
    assert isinstance(result, tuple | list)
    return [tensor for each in result if each is not None for tensor in flat(each)]


def traced(module: nn.Module, inputs: tuple[Tensor, ...]) -> Exported:
    program = torch.jit.trace(module, inputs, check_trace=False)
    return lambda *given: list(program(*given))


def exported(module: nn.Module, inputs: tuple[Tensor, ...]) -> Exported:
    program = torch.export.export(module, inputs).module()
    return lambda *given: list(program(*given))


def in_onnx(module: nn.Module, inputs: tuple[Tensor, ...]) -> Exported:
    file = io.BytesIO()
    names = [f"input{number}" for number in range(len(inputs))]
    axes = {name: dict(enumerate(map(str, range(tensor.dim())))) for name, tensor in zip(names, inputs, strict=True)}
    torch.onnx.export(module, inputs, file, dynamo=False, input_names=names, dynamic_axes=axes, opset_version=17)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    taken = {each.name for each in session.get_inputs()}

    def run(*given: Tensor) -> list[Tensor]:
        feeds = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True) if name in taken}
        return [torch.from_numpy(each) for each in session.run(None, feeds)]

    return run


def images(height: int, width: int) -> tuple[Tensor]:
    return (60 * torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height)),)


def rois(count: int) -> Tensor:
    corners = torch.rand(count, 4, generator=torch.Generator().manual_seed(count)) * 60
    return torch.cat((torch.zeros(count, 1), corners[:, :2], corners[:, :2] + corners[:, 2:] + 4), dim=1)


def maps_and_rois(model: Detector, height: int, width: int, count: int) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return (*model.features(*images(height, width)).maps, rois(count))


def pooled(head: str) -> Callable[[nn.Module, Tensor], object]:
    return lambda model, features: getattr(model, head)(features)


def features_of(model: Detector, maps: tuple[Tensor, ...]) -> Features:
    return Features(list(maps), model.backbone.strides)


def pools(head: str) -> Callable[..., object]:
    def run(model: Detector, *given: Tensor) -> object:
        return getattr(model, head).roi_features(features_of(model, given[:-1]), given[-1])

    return run


def cases() -> dict[str, tuple[str, Callable[..., object], Callable[[Detector], list[tuple[Tensor, ...]]]]]:
    """Name -> file and overrides of the model, what is run, and the inputs that it is traced with and then run on."""

    def sizes(model: Detector) -> list[tuple[Tensor, ...]]:
        return [images(96, 128), images(160, 96)]

    def of_head(head: str) -> Callable[[Detector], list[tuple[Tensor, ...]]]:
        def make(model: Detector) -> list[tuple[Tensor, ...]]:
            assert isinstance(model, GeneralizedRCNN)
            with torch.no_grad():
                features = model.features(*images(96, 128))
                return [(getattr(model, head).roi_features(features, rois(count)),) for count in (5, 9)]

        return make

    def of_maps(model: Detector) -> list[tuple[Tensor, ...]]:
        return [maps_and_rois(model, 96, 128, 5), maps_and_rois(model, 160, 96, 9)]

    return {
        "features of a pyramid": ("faster_x101", lambda model, data: model.features(data), sizes),
        "features of C4": ("mask_c4", lambda model, data: model.features(data), sizes),
        "backbone": ("keypoint", lambda model, data: model.backbone(data), sizes),
        "RPN": ("rpn_fpn", lambda model, data: model.rpn(model.features(data)), sizes),
        "box head": ("faster_x101", pooled("box_head"), of_head("box_head")),
        "res5 box head": ("mask_c4", pooled("box_head"), of_head("box_head")),
        "mask head": ("mask_c4", pooled("mask_head"), of_head("mask_head")),
        "keypoint head": ("keypoint", pooled("keypoint_head"), of_head("keypoint_head")),
        "pooling from a pyramid": ("keypoint", pools("box_head"), of_maps),
        "pooling from C4": ("mask_c4 MRCNN.ROI_XFORM_SAMPLING_RATIO 2", pools("mask_head"), of_maps),
    }


CASES = cases()
WAYS = {"torch.jit.trace": traced, "torch.export": exported, "torch.onnx": in_onnx}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_an_export_of_a_public_module_is_right_or_refused(case: str, way: str) -> None:
    source, run, inputs_of = CASES[case]
    name, *overrides = source.split()
    model = zoo_model(DATA / f"{name}.h5", *overrides).eval()
    module = Of(model, run).eval()
    first, *others = inputs_of(model)
    with torch.no_grad():
        program = WAYS[way](module, first)
        assert_same(program(*first), module(*first))
        for given in others:
            try:
                found = program(*given)
            except Exception:
                # torch.export holds a program to the sizes that it saw, and says so.
                assert way == "torch.export"
                continue
            assert_same(found, module(*given))


def assert_same(found: list[Tensor], wanted: tuple[Tensor, ...]) -> None:
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.float().abs().max()))


@pytest.mark.parametrize("way", WAYS)
def test_what_the_host_decides_is_refused_in_every_trace(way: str) -> None:
    model = zoo_model(DATA / "mask_c4.h5").eval()
    picture = torch.zeros(3, 60, 80, dtype=torch.uint8)
    info = ImInfo(96, 128, 1.0)
    parts: dict[str, tuple[Callable[..., object], tuple[Tensor, ...]]] = {
        "an image is scaled": (lambda model, image: model([image])[0].tensors()["boxes"], (picture,)),
        "ROI_XFORM_SAMPLING_RATIO 0": (pools("mask_head"), maps_and_rois(model, 96, 128, 4)),
        "numpy orders what ties": (
            lambda model, data: model.rpn.collected(model.rpn(model.features(data)), (16,), 0, info),
            images(96, 128),
        ),
    }
    for sentence, (run, inputs) in parts.items():
        with torch.no_grad(), pytest.raises(InputError, match=sentence):
            WAYS[way](Of(model, run).eval(), inputs)


def test_a_compiled_network_detects_and_has_losses(demo_model: Path, pickle: Path) -> None:
    model = load(pickle, device="cpu")
    photo = demo_model / "val" / "000000300004.png"
    wanted = model.detect(photo)
    compiled = torch.compile(model, backend="eager")
    np.testing.assert_array_equal(compiled([photo])[0].boxes, wanted.boxes)
    compiled.train()
    losses = compiled([photo], [{"boxes": [[20, 20, 90, 90]], "labels": [1], "masks": [[[20, 20, 90, 20, 90, 90]]]}])
    assert all(loss.isfinite() for loss in losses.values()) and "loss_mask" in losses


def test_detectors_are_imported_without_the_compiler_which_takes_longer_than_all_else() -> None:
    code = "import sys, detectron_gn.mrcnn.detectors; print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == "set()\n"


@pytest.mark.parametrize("head", ["mask_head.probabilities", "keypoint_head.outputs"])
def test_no_rois_are_not_traced(head: str) -> None:
    part, method = head.split(".")
    model = zoo_model(DATA / ("mask_c4.h5" if part == "mask_head" else "keypoint.h5")).eval()
    extra = (torch.zeros(0, dtype=torch.int64),) if part == "mask_head" else ()
    *maps, none = maps_and_rois(model, 96, 128, 0)

    def run(model: Detector, *given: Tensor) -> object:
        return getattr(getattr(model, part), method)(features_of(model, given), none, *extra)

    with torch.no_grad(), pytest.raises(InputError, match="of no RoIs"):
        traced(Of(model, run).eval(), tuple(maps))


def test_outputs_of_static_shape_are_exported_for_the_size_that_was_seen() -> None:
    model = zoo_model(DATA / "faster_x101.h5").eval()
    module = Of(model, lambda model, *given: model.static_outputs(*given)).eval()
    given = (*images(96, 128), torch.ones(1, dtype=torch.float64), torch.tensor([[96.0, 128.0]]))
    with torch.no_grad():
        assert_same(exported(module, given)(*given), module(*given))
        for way in (traced, in_onnx):
            with pytest.raises(InputError, match="number of candidates"):
                way(module, given)
