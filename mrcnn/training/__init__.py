"""Training with Caffe2's arithmetic: sampling, losses, solver, checkpoints and the loop."""
