"""The dictionary between Detectron's blobs and the network's parameters and activations."""
