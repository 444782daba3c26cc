"""The laboratory: blob, detection and AP parity of the port with Caffe2's Detectron."""
