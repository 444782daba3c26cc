"""A reference file that leads to other files is refused, and none of them is opened."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.verify.reference.guarded_hdf5 import GuardedGroup, open_hdf5


def external_storage(file: h5py.File, other: Path) -> None:
    file["blobs"].create_dataset("x", (4,), "f4", external=[(str(other), 0, 16)])


def virtual_dataset(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(other), "x", (4,))
    file["blobs"].create_virtual_dataset("x", layout)


def unlimited_virtual_dataset(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4", maxshape=(None,))
    source = h5py.VirtualSource(str(other), "x", (4,), maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED :] = source[: h5py.h5s.UNLIMITED :]
    file["blobs"].create_virtual_dataset("x", layout)


def external_link(file: h5py.File, other: Path) -> None:
    file["blobs"]["x"] = h5py.ExternalLink(str(other), "/x")


def soft_link_to_an_external_link(file: h5py.File, other: Path) -> None:
    file["out"] = h5py.ExternalLink(str(other), "/x")
    file["blobs"]["x"] = h5py.SoftLink("/out")


def external_folder(file: h5py.File, other: Path) -> None:
    del file["blobs"]
    file["blobs"] = h5py.ExternalLink(str(other), "/x")


@pytest.mark.parametrize(
    "make",
    [
        external_storage,
        virtual_dataset,
        unlimited_virtual_dataset,
        external_link,
        soft_link_to_an_external_link,
        external_folder,
    ],
)
def test_a_reference_that_leads_to_another_file_is_refused(
    make: Callable[[h5py.File, Path], None], tmp_path: Path
) -> None:
    """Were it a pipe, whoever opens it would wait for ever."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("x", data=np.ones(4, "f4"), chunks=(4,), maxshape=(None,))
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file.create_group("blobs")
        make(file, tmp_path / "other.h5")
    with open_hdf5(tmp_path / "r.h5", "dump it again") as file:
        root = GuardedGroup(file, str(tmp_path / "r.h5"), "dump it again")
        with pytest.raises(InputError, match="r.h5: blobs(/x)? (is a link|keeps its values in another).*: dump it"):
            assert "blobs" in root
            blobs = root.group("blobs")
            assert blobs.names() == ["x"]
            blobs.require("x")
            blobs.numbers("x")


def test_members_are_found_by_their_path(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["blobs/x"] = np.ones(2, "f4")
    with open_hdf5(tmp_path / "r.h5", "dump it again") as file:
        root = GuardedGroup(file, str(tmp_path / "r.h5"), "dump it again")
        assert "blobs/x" in root and "blobs/y" not in root and "a/x" not in root
        assert root.numbers("blobs/x").tolist() == [1, 1]
        with pytest.raises(InputError, match="lacks blobs/y"):
            root.dataset("blobs/y")
