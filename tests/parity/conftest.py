"""`python -m pytest tests/parity -m parity`: tiny models, the same in torch and in JAX. Needs `.[parity]`."""

import re

import pytest


def pytest_ignore_collect(collection_path, config):
    """torch is imported only where these tests are asked for."""
    asked = re.search(r"(?<!not )\bparity\b", config.option.markexpr)
    return None if asked else True


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    from torch_models import precision

    with precision(request.param):
        yield request.param
