"""Losses between relations of the samples of a batch."""
