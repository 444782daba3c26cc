"""Classes find their categories by name, whatever the order and the ids; what cannot be matched is named."""

import unicodedata
from pathlib import Path

import pytest

from detectron_gn.mrcnn.data.categories import Places, equal_names, match_categories, read_class_names
from detectron_gn.mrcnn.errors import InputError

NAMES = ("circle", "square", "Käfer", "star")
VAL = Path("val.json")


def categories(*names, ids=(3, 17, 44, 62, 70)):
    return [{"id": identity, "name": name} for identity, name in zip(ids, names)]


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (categories(*NAMES), [3, 17, 44, 62]),
        (categories(*NAMES[::-1]), [62, 44, 17, 3]),
        (categories(*NAMES, ids=(103, 1, 0, -5)), [103, 1, 0, -5]),
        (categories("star", "circle", "square", "Käfer", ids=(9, 8, 7, 6)), [8, 7, 6, 9]),
        (categories("circle", "square", unicodedata.normalize("NFD", "Käfer"), "star"), [3, 17, 44, 62]),
        (categories("circle ", " square", "Käfer", "star"), [3, 17, 44, 62]),
    ],
    ids=["equal", "reversed", "other ids", "rotated", "NFD", "blanks"],
)
def test_a_class_has_the_id_of_the_category_of_its_name(file, expected):
    assert match_categories(NAMES, 4, file, VAL) == expected
    # The same where the model has the name in two characters.
    assert match_categories([unicodedata.normalize("NFD", name) for name in NAMES], 4, file, VAL) == expected


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (categories("circle", "quadrat", "Käfer", "star"), "no category 'square', which is class 2.*it has 'quadrat'"),
        (categories("circle", "star", "Käfer", "SQUARE"), "no category 'square', which is class 2.*it has 'SQUARE'"),
        (categories("Circle", "Square", "Käfer", "star"), "no category 'circle', which is class 1.*it has 'Circle'"),
        (categories("circle", "square", "Kafer", "star"), "no category 'Käfer', which is class 3.*it has 'Kafer'"),
        (categories("circle", "square", "star"), "no category 'Käfer', which is class 3.*it has 3 categories"),
        (categories(*NAMES, "moon"), "has the category 'moon', which the model does not know"),
        (categories("moon", *NAMES), "has the category 'moon', which the model does not know"),
        (categories("circle", "circle", "Käfer", "star"), "gives the name 'circle' to two categories"),
        ([], "no category 'circle', which is class 1.*it has 0 categories"),
        ([{"id": 1}, *categories("square", "Käfer", "star")], "no category 'circle', which is class 1"),
        (categories("circle", 7, "Käfer", "star"), "no category 'square', which is class 2.*it has '7'"),
    ],
)  # fmt: skip
def test_the_first_class_without_a_category_is_named(file, sentence):
    with pytest.raises(InputError, match=rf"val\.json {'has ' if 'no category' in sentence else ''}{sentence}"):
        match_categories(NAMES, 4, file, VAL)


def test_classes_whose_names_differ_only_in_how_an_accent_is_written_are_two():
    both = ("é", unicodedata.normalize("NFD", "é"))
    assert match_categories(both, 2, categories(*both[::-1]), VAL) == [17, 3]
    with pytest.raises(InputError, match="no category"):
        match_categories(both, 2, categories("é"), VAL)
    assert Places(both).find("é") == 0 and Places(both[:1]).find(both[1]) == 0
    assert equal_names(["é"], both[1:]) and not equal_names(["a", "b"], ["b", "a"])


@pytest.mark.parametrize("file", [categories(*NAMES), categories(*NAMES[::-1]), [{"id": n} for n in (3, 17, 44, 62)]])
def test_classes_without_names_go_by_their_places_as_in_detectron(file):
    assert match_categories(None, 4, file, VAL) == [3, 17, 44, 62]
    for other in (file[:3], [*file, {"id": 99}]):
        with pytest.raises(InputError, match=f"has {len(other)} categories, but the model has 4 classes"):
            match_categories(None, 4, other, VAL)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"cat\ndog\n", ("cat", "dog")),
        (b"\xef\xbb\xbfcat\r\ndog", ("cat", "dog")),
        ("  K\u00e4fer \n\n\u56db\u89d2\n".encode(), ("Käfer", "四角")),
        (b"traffic light\nCat\ncat\n", ("traffic light", "Cat", "cat")),
    ],
)
def test_a_file_of_names_has_one_a_line(content, names, tmp_path):
    (tmp_path / "names.txt").write_bytes(content)
    assert read_class_names(tmp_path / "names.txt") == names


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "names no class"),
        (b"\n \n", "names no class"),
        (b"cat\ncat\n", "the class cat is given twice"),
        (b"__background__\ncat\n", "is what is no object"),
        (b"\xff\xfec\x00", "is no text in UTF-8"),
        (b"x" * 1025, "has a name longer than 1024 bytes"),
        (b"x\n" * (3 << 20), "is no text in UTF-8"),
    ],
)
def test_a_file_of_no_names_is_refused(content, sentence, tmp_path):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"names\.txt:? ?.*{sentence}"):
        read_class_names(tmp_path / "names.txt")
