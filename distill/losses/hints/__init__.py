"""Losses between features of one layer."""
