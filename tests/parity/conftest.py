"""`python -m pytest tests/parity -m parity`: tiny models, the same in torch and in JAX. Needs `.[parity]`."""

import re

import pytest


def pytest_ignore_collect(collection_path, config):
    """torch is imported only where these tests are asked for."""
    asked = re.search(r"(?<!not )\bparity\b", config.option.markexpr)
    return None if asked else True


@pytest.fixture
def facts_are_read_once(monkeypatch):
    """`from_config` reads them anew each time; some of these tests call it a hundred thousand times."""
    from posembed_jax.hf import config
    from posembed_jax.hf.facts import facts

    known = facts()
    monkeypatch.setattr(config, "facts", lambda: known)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    from torch_models import precision

    with precision(request.param):
        yield request.param
