"""Losses between the tokens of transformers: their vectors, and how they attend to each other."""
