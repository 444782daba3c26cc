"""Pictures show every detection where it is, and drawing changes nothing but the picture."""

import tracemalloc

import numpy as np
import pytest

from detectron_gn.mrcnn import drawn_labels
from detectron_gn.mrcnn.drawn_labels import Label, draw_labels
from detectron_gn.mrcnn.ops.paste import Patch
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.mrcnn.visualize import DrawnObject, class_colour, draw_detections, draw_objects, row_object

GREY = 100


def photo(height: int = 480, width: int = 640) -> np.ndarray:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def drawn(box: tuple[float, float, float, float], shape: tuple[int, int], label: str = "") -> DrawnObject:
    x1, y1, x2, y2 = (round(corner) for corner in box)
    mask = np.zeros(shape, dtype=bool)
    mask[max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1] = True
    return DrawnObject(box, lambda: Patch(mask, 0, 0), label, (250, 0, 200))


def test_a_mask_is_blended_inside_of_its_outline_only() -> None:
    picture = draw_objects(photo(), [drawn((200, 100, 299, 199), (480, 640))])
    assert picture.shape == (480, 640, 3)
    # 0.75 * 100 + 0.25 * (250, 0, 200)
    assert np.unique(picture[105:195, 205:295].reshape(-1, 3), axis=0).tolist() == [[137, 75, 125]]
    assert picture[100, 250].tolist() == [250, 0, 200] and picture[199, 250].tolist() == [250, 0, 200]
    outside = picture.copy()
    outside[96:204, 196:304] = GREY
    assert (outside == GREY).all()


def test_a_box_without_a_mask_is_an_outline() -> None:
    picture = draw_objects(photo(), [DrawnObject((200, 100, 299, 199), None, "", (250, 0, 200))])
    rows, columns = np.nonzero((picture != GREY).any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (100, 199, 200, 299)
    assert (picture[102:198, 202:298] == GREY).all()


def test_a_light_line_has_a_dark_edge_on_both_sides_and_a_dark_one_has_none() -> None:
    light = draw_objects(photo(), [DrawnObject((200, 100, 299, 199), None, "", (0, 250, 250))])
    assert light[150, 198:203].tolist() == [[GREY] * 3, [0, 125, 125], [0, 250, 250], [0, 125, 125], [GREY] * 3]
    dark = draw_objects(photo(), [DrawnObject((200, 100, 299, 199), None, "", (250, 0, 200))])
    assert dark[150, 199:202].tolist() == [[GREY] * 3, [250, 0, 200], [GREY] * 3]


def test_a_small_picture_is_enlarged_by_a_whole_factor_and_boxes_with_it() -> None:
    picture = draw_objects(photo(120, 160), [DrawnObject((10, 20, 19, 39), None, "", (250, 0, 200))])
    assert picture.shape == (480, 640, 3)
    rows, columns = np.nonzero((picture != GREY).any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (80, 159, 40, 79)


@pytest.mark.parametrize("box", [(-20, -10, 30, 30), (600, 450, 700, 500), (639, 479, 639, 479), (-50, -50, 900, 900)])
def test_objects_that_reach_over_the_edge_are_drawn_as_far_as_they_are_seen(
    box: tuple[float, float, float, float],
) -> None:
    picture = draw_objects(photo(), [drawn(box, (480, 640), "near the edge 0.99")])
    assert picture.shape == (480, 640, 3) and (picture != GREY).any()


def test_an_empty_mask_and_no_objects_at_all_are_no_fault() -> None:
    empty = DrawnObject((5, 5, 9, 9), lambda: Patch(np.zeros((480, 640), dtype=bool), 0, 0), "", (1, 2, 3))
    draw_objects(photo(), [empty])
    assert (draw_objects(photo(), []) == GREY).all()


def test_a_label_that_would_cover_another_is_left_out() -> None:
    # The box is in a corner, so every place for a label is over it or below it.
    boxes = [DrawnObject((0, 0, 9, 19), None, f"label {n}", (250, 0, 200)) for n in range(3)]
    two, three = draw_objects(photo(), boxes[:2]), draw_objects(photo(), boxes)
    assert (draw_objects(photo(), boxes[:1]) != two).any()
    assert (two == three).all()


def test_only_detections_above_the_score_are_drawn_and_the_image_stays() -> None:
    detections = Detections(
        boxes=np.array([[100, 100, 199, 199], [300, 300, 399, 399]], dtype=np.float32),
        scores=np.array([0.4, 0.8], dtype=np.float32),
        classes=np.array([1, 2]),
        mask_probs=np.ones((2, 28, 28), dtype=np.float32),
        image_size=(480, 640),
        mask_threshold=0.5,
    )
    image = photo()
    picture = draw_detections(image, detections, ["dog", "cat"], min_score=0.5)
    assert (picture[150, 150] == GREY).all()
    blended = 0.75 * GREY + 0.25 * np.array(class_colour(2))
    np.testing.assert_allclose(picture[350, 350], blended, atol=1)
    assert (image == GREY).all()
    assert (picture == draw_detections(image, detections, ["dog", "cat"])).all()


def test_drawing_and_encoding_hold_one_mask_at_a_time() -> None:
    """Of 30 masks as large as the picture, all at once would be 60 MB, and 90 MB more to stack them."""
    height, width, count = 1000, 2000, 30
    whole = np.tile(np.array([[0, 0, width - 1, height - 1]], dtype=np.float32), (count, 1))
    detections = Detections(
        boxes=whole - np.arange(count, dtype=np.float32)[:, None] * [[0, 0, 1, 1]],
        scores=np.linspace(1, 0.1, count, dtype=np.float32),
        classes=np.ones(count, dtype=np.int64),
        mask_probs=np.full((count, 28, 28), 0.9, dtype=np.float32),
        image_size=(height, width),
    )
    image = photo(height, width)
    for work in (lambda: draw_detections(image, detections, ["dog"], 0.0), detections.rles):
        tracemalloc.start()
        work()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 36_000_000


def test_a_mask_is_blended_as_numbers_are_and_cut_down() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    item = drawn((200, 100, 299, 199), (480, 640))
    inside = draw_objects(image, [item])[110:190, 210:290]
    expected = (0.75 * image[110:190, 210:290] + 0.25 * np.array(item.colour)).astype(np.uint8)
    assert np.array_equal(inside, expected)


def test_eighty_classes_have_eighty_colours() -> None:
    assert len({class_colour(label) for label in range(1, 81)}) == 80


@pytest.mark.parametrize(("name", "letters"), [("\ud800a", "?a"), ("Löffel", "Loffel"), ("犬", "?"), ("ﬁg", "fig")])
def test_letters_that_cannot_be_drawn_lose_their_accents_or_are_question_marks(name: str, letters: str) -> None:
    odd, plain = (draw_objects(photo(), [drawn((200, 100, 299, 199), (480, 640), each)]) for each in (name, letters))
    assert np.array_equal(odd, plain)


def labels_written(canvas: np.ndarray, labels: list[Label], unit: float, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The places of the labels that are written, `[N, 4]` left, top, right, bottom, the last ones not included."""
    places: list[tuple[int, ...]] = []
    monkeypatch.setattr(drawn_labels, "_write", lambda _canvas, _text, place, *_: places.append(tuple(place)))
    draw_labels(canvas, labels, [label.box for label in labels], unit)
    return np.array(places)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (960, 1280), (300, 3000), (1600, 200)])
def test_of_many_labels_none_covers_another_and_all_are_in_the_picture(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 0.8, (200, 2)) * (width, height)
    boxes = np.concatenate([corners, corners + random.uniform(5, 0.2 * height, (200, 2))], axis=1).astype(int)
    labels = [Label(tuple(box), "traffic light 0.97", (0, 200, 0)) for box in boxes.tolist()]
    places = labels_written(photo(height, width), labels, 1.5, monkeypatch)
    covered = np.zeros((height, width), dtype=int)
    for left, top, right, bottom in places:
        covered[top:bottom, left:right] += 1
    assert covered.max() == 1 and len(places) > 30
    assert places.min() >= 0 and (places[:, 2] <= width).all() and (places[:, 3] <= height).all()
    # Those that come first have their label.
    first = labels_written(photo(height, width), labels[:8], 1.5, monkeypatch)
    assert len(first) >= 7


def test_a_label_goes_where_it_hides_no_small_object(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = (100, 200, 400, 400), (100, 180, 180, 198)
    labels = [Label(large, "table 0.90", (9, 9, 9)), Label(small, "cup 0.80", (9, 9, 9))]
    place, _ = labels_written(photo(), labels, 1.0, monkeypatch)
    assert place[3] == 200 and place[0] > 180  # above its box still, to the right of the small one
    (alone,) = labels_written(photo(), [Label(large, "table 0.90", (9, 9, 9))], 1.0, monkeypatch)
    assert (alone[0], alone[3]) == (100, 200)


@pytest.mark.parametrize(
    ("size", "drawn_size"),
    [
        ((48, 64), (480, 640)),
        ((480, 640), (480, 640)),
        ((20, 640), (80, 2560)),
        ((4000, 6000), (4000, 6000)),
        ((1, 4000), (1, 4000)),
    ],
)
def test_pictures_of_any_size_have_lines_and_letters_that_suit_them(
    size: tuple[int, int], drawn_size: tuple[int, int]
) -> None:
    height, width = size
    box = (width * 0.4, height * 0.4, width * 0.8, height * 0.8)
    picture = draw_objects(photo(*size), [DrawnObject(box, None, "", (250, 0, 200))])
    assert picture.shape[:2] == drawn_size
    middle = (picture[:, round(drawn_size[1] * 0.6)] == (250, 0, 200)).all(axis=1)
    thick = middle.sum() / 2
    # One pixel where the picture is small, and a few of the 4000 of a large one.
    assert 0.5 <= thick <= max(1, drawn_size[0] / 500)


def test_a_small_person_has_a_thin_skeleton_and_hidden_keypoints_are_not_drawn() -> None:
    points = np.stack([np.linspace(200, 240, 17), np.linspace(100, 140, 17), np.full(17, 9.0), np.ones(17)])
    drawn_pixels = []
    for box in ((200, 100, 240, 140), (10, 10, 600, 470)):
        item = DrawnObject(box, None, "", (GREY, GREY, GREY), points.astype(np.float32))
        drawn_pixels.append(int((draw_objects(photo(), [item]) != GREY).any(axis=2).sum()))
    assert drawn_pixels[0] < drawn_pixels[1]
    points[2] = 1.0  # a logit that Detectron does not draw either
    item = DrawnObject((200, 100, 240, 140), None, "", (GREY, GREY, GREY), points.astype(np.float32))
    assert (draw_objects(photo(), [item]) == GREY).all()


def test_a_row_of_results_is_drawn_as_the_detection_that_it_is_of() -> None:
    random = np.random.default_rng(0)
    detections = Detections(
        boxes=np.array([[100, 100, 299.5, 399.25]], dtype=np.float32),
        scores=np.array([0.75], dtype=np.float32),
        classes=np.array([1]),
        mask_probs=random.uniform(0, 1, (1, 28, 28)).astype(np.float32),
        keypoints=random.uniform([[100], [100], [0], [0]], [[300], [300], [4], [1]], (1, 4, 17)).astype(np.float32),
        image_size=(480, 640),
        mask_threshold=0.5,
    )
    row = {**detections.to_coco(1)[0], "keypoint_logits": detections.keypoints[0, 2].tolist()}
    drawn_row = draw_objects(photo(), [row_object(row, "dog 0.75", class_colour(1))])
    assert (drawn_row == draw_detections(photo(), detections, ["dog"])).all()
    # COCO's own rows know of no logits, so that all keypoints are drawn; annotated ones of visibility 0 are not there.
    del row["keypoint_logits"]
    everything = draw_objects(photo(), [row_object(row, "", class_colour(1))])
    row["keypoints"] = [0] * 51
    nothing = draw_objects(photo(), [row_object(row, "", class_colour(1))])
    assert (everything != drawn_row).any() and (nothing != everything).any()
