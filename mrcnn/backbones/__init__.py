"""The bodies of the networks: images to feature maps."""
