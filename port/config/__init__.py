"""Detectron's YAML to a typed configuration and back."""
