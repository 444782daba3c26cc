"""A training run from its start to `model_final.pkl`, under the eye of its evaluation."""
