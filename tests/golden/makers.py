"""What the scripts that make golden cases have in common."""

import argparse
import logging
import pathlib
import warnings


def asked(description, *, types=False):
    """The folder that a script is to write into, and the model types it is to make cases of, if it takes any."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    if types:
        parser.add_argument("types", nargs="*")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    return arguments
