"""COCO annotations to minibatches; answers to Detectron datasets/ and roi_data/."""
