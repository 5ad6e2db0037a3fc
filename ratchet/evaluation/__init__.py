"""How good a model is: per-image counts, metrics, and the exported model that is scored."""
