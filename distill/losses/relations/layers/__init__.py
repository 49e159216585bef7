"""Losses between relations of the layers of a model."""
