"""The GN Mask R-CNN network, its operators, its data and its training in plain PyTorch, with Detectron's semantics."""
