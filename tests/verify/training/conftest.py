"""What the tests of whole training runs share."""

import pytest

from tests.helpers.small_run import run


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run of six iterations in one go: checkpoints after iterations 1 and 3, another learning rate from 3 on."""
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out
