"""What the real Caffe2 Detectron computed, as files that are read and checked in one place."""
