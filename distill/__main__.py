"""`python -m distill` and `accelerate launch -m distill` do what `distill` does."""

from distill.cli import entry

entry()
