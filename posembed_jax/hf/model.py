"""One model type's file, and what is known of the type: what the readers of rotation hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Values = Mapping[str, Any]

WITHOUT_DICT = ("conformer", "clvp", "dinov3", "default_only_stored", "lightglue", None)  # of init
BY_LAYER = ("per_layer", "per_label")  # parts of init


class Model(NamedTuple):
    """A configuration that has no parts, or one part of a composite's.

    Args:
        given: the file, under the names that transformers' code reads.
        known: of its model type, from rotary_types.json.
        values: the file's, and the defaults.
        follow: do what transformers does with what it does not read, silently; else that is refused.
        layer_types: the type of each layer; () where all of a model type are alike.
    """

    given: Values
    known: Values
    values: Values
    follow: bool
    layer_types: tuple[str, ...] = ()

    @property
    def code(self) -> Values:
        """The labels of transformers' code, whose `bodies` in rotary_types.json say what each of them means."""
        return self.known["modeling"]

    @property
    def init(self) -> str:
        return self.code["init"] or ""

    @property
    def derived(self) -> Values:
        """Settings that the class makes of others where a file does not say them: an expression over these."""
        return self.known.get("derived", {})

    @property
    def has_dicts(self) -> bool:
        """Whether the base and the scaling are in rotary dicts; else the base, if any, is in another place."""
        keys = {*self.known["keys"], *self.known["config"]}
        return bool({"rope_parameters", "rope_theta"} & keys) and not self.keeps_no_dict

    @property
    def keeps_no_dict(self) -> bool:
        return self.code["init"] in WITHOUT_DICT

    @property
    def has_dicts_by_layer(self) -> bool:
        """Whether there may be a rotary dict for each type of layer; else the layers are all alike."""
        return any(label in self.init for label in BY_LAYER)

    @property
    def number_of_layers(self) -> int:
        """0 where the model type does not say it."""
        count = self.values.get("num_hidden_layers")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 0):
            raise ValueError(f"num_hidden_layers is {count!r}; it needs to be a whole number, such as 32.")
        return count or 0
