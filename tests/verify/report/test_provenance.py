"""A report tells what it was made of, and nothing secret of it."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from detectron_gn.verify.ladder import LadderInputs
from detectron_gn.verify.published import Expectation, compare_ap
from detectron_gn.verify.report.content import model_title
from detectron_gn.verify.report.provenance import ladder_facts, machine_facts

SOURCE = "http://user:p@ssword@host/a/model.pkl?token=hush"


def test_no_password_and_no_token_of_an_address_is_in_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = dict.fromkeys(LadderInputs.__dataclass_fields__) | {"source": SOURCE, "reference_results": {}}
    ladder = SimpleNamespace(sha256="0" * 64, model=None, evaluation=None)
    monkeypatch.setattr(sys, "argv", ["detectron-gn", "verify", "ap", SOURCE, "--images", "val"])
    facts = ladder_facts(ladder, SimpleNamespace(**inputs)) + machine_facts(torch.device("cpu"))
    assert ("model", "http://host/a/model.pkl?...") in facts
    assert ("command", "detectron-gn verify ap 'http://host/a/model.pkl?...' --images val") in facts
    assert model_title(SOURCE) == "model.pkl?..."
    comparison = compare_ap(SOURCE, Expectation({}), {})
    for told in str(facts), model_title(SOURCE), str(comparison):
        assert "p@ss" not in told and "ssword" not in told and "hush" not in told


def test_a_file_is_called_by_its_name() -> None:
    assert model_title(str(Path("folder") / "model@v1.pkl")) == "model@v1.pkl"
