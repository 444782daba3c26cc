"""Where a network begins to differ from Caffe2, and what that usually comes from."""
