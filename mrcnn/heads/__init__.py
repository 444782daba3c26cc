"""What stands on the features: proposals, boxes and masks."""
