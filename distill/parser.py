"""The parser of a command line whose complaints are errors like all others."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Raises a `ValueError` for a word that it does not know, which the command line shows as one line."""

    def error(self, message: str) -> NoReturn:
        """Complain in one line.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{message}. See {self.prog} --help.")
