"""Losses between relations: of the samples of a batch, of the layers of a model."""
