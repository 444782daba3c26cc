"""The text that goes into weights we write is the one Detectron itself would write."""

from pathlib import Path

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from detectron_gn.port.config.read import bundled_config, dump_config

DATA = Path(__file__).parents[2] / "data"


def tree(node: Node):
    """Tags and values of a YAML text without style, order of keys and aliases."""
    if isinstance(node, MappingNode):
        return node.tag, {tree(key): tree(value) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return node.tag, [tree(element) for element in node.value]
    return node.tag, "".join(node.value.split()) if node.tag.endswith("binary") else node.value


def test_the_dump_is_detectrons_own_tag_for_tag():
    """saved_by_python3.yaml is Detectron's `yaml.dump(cfg)` of the same configuration."""
    ours = yaml.compose(dump_config(bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")))
    detectrons = yaml.compose((DATA / "saved_by_python3.yaml").read_text())
    assert tree(ours) == tree(detectrons)


def test_the_dump_is_ascii_so_that_python_2_reads_it_too():
    text = dump_config(bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn", ["OUTPUT_DIR", "ausgänge"]))
    assert text.isascii()
