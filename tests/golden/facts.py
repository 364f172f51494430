"""What `hf.from_config` says of a case's model: from the case's configuration, else from the model type's default."""

import dataclasses
import itertools

from posembed_jax import hf
from posembed_jax.hf import config as loader
from posembed_jax.hf.expressions import names_in


@dataclasses.dataclass(frozen=True)
class Place:
    """A scheme of a model, where it is, and what else the model does there."""

    name: str
    scheme: object
    about: dict


def places(case, kind):
    """Every place of the model, and of the parts of a composite, with a scheme of this class."""
    known = loader.facts()["others"]
    config = case.config or {"model_type": case.model}
    found = list(_of(hf.from_config(config, follow_upstream_bugs=True), kind))
    # A module that runs in a model of another configuration: TrOCR's sinusoids where its table is not learned.
    for keys in () if case.config else _switches(known["types"].get(case.model, {})):
        found += _of(hf.from_config({"model_type": case.model, **keys}), kind)
    return found


def _of(positions, kind):
    for name, scheme in (*positions.additive.items(), *positions.biases.items()):
        if isinstance(scheme, kind):
            yield Place(name, scheme, positions.about.get(name, {}))
    for tower in positions.towers.values():
        yield from _of(tower, kind)


def _switches(facts):
    names = {name for row in facts.get("places", ()) for name in names_in(row.get("when"))}
    booleans = sorted(name for name in names if isinstance(facts["config"][name], bool))
    for values in itertools.product((False, True), repeat=len(booleans)):
        yield dict(zip(booleans, values, strict=True))


def only(found, *settings):
    """The one place, if all that were found agree in these settings, or else in all, and in what is around them."""
    assert found, "nothing found in this model"

    def of(scheme):
        return repr([getattr(scheme, name) for name in settings] if settings else scheme)

    alike = {(of(one.scheme), repr(one.about)): one for one in found}
    assert len(alike) == 1, alike
    return next(iter(alike.values()))
