"""Ours beside the reference: blobs, detections, training."""
