"""Detectron YAML of every model of the catalog and of the demo: data, found by port.config.read.bundled_config."""
