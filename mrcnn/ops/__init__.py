"""Detectron's operators on boxes, anchors, RoIs and masks, quirks included."""
