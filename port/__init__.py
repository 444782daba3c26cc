"""The dictionary between Detectron and the network: YAML and config, blobs and parameters, both ways."""
