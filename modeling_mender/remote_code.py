"""What a saved configuration says about the code that reads it, so that `trust_remote_code=True` needs no installation.

`register_for_auto_class` makes transformers copy the files of a model beside its weights and name them in `auto_map`.
That knows one auto class per class and no pipelines; the rest is here. Configurations inherit it first, and with the
import of the pipeline its file belongs to the code of every model.
"""

from __future__ import annotations

from typing import Any

from transformers.utils import TRANSFORMERS_DYNAMIC_MODULE_NAME

from .hub_names import public_name
from .pipeline_mender import TASK, GenerativeRetrievalPipeline

__all__ = ["CarriesCode"]


class CarriesCode:
    """Mixin of configurations: `auto_map` and `custom_pipelines` of the model, in whatever is written.

    Attributes:
        model_code: file and class of the model, "modeling_x.ModelX".
        auto_classes: auto classes that load it.
    """

    model_code = ""
    auto_classes = ("AutoModel",)

    def to_dict(self) -> dict[str, Any]:
        """Every field, the names of the code that reads them included."""
        module = type(self).__module__.rpartition(".")[2]
        code = {"AutoConfig": f"{module}.{type(self).__name__}", **dict.fromkeys(self.auto_classes, self.model_code)}
        # Loaded from the Hub, names lead back to the repository they came from ("org/name--file.Class"); what is
        # written brings its own files.
        set_by_hand = getattr(self, "auto_map", None) or {}
        code.update({auto: name for auto, name in set_by_hand.items() if "--" not in name})
        pipeline = {"impl": f"pipeline_mender.{GenerativeRetrievalPipeline.__name__}", "pt": ["AutoModel"]}
        return {**_without_paths(super().to_dict()), "auto_map": code, "custom_pipelines": {TASK: pipeline}}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """A configuration from its fields.

        Installed code forgets `custom_pipelines`: its own pipeline is registered, but transformers would ask to trust
        the repository's.
        """
        if not cls.__module__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}."):
            config_dict = {name: value for name, value in config_dict.items() if name != "custom_pipelines"}
        return super().from_dict(config_dict, **kwargs)


def _without_paths(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields whose parts name where they came from by its name on the Hub, not by a folder of this machine."""
    parts = {name: _without_paths(value) for name, value in fields.items() if isinstance(value, dict)}
    for part in parts.values():
        if "_name_or_path" in part:
            part["_name_or_path"] = public_name(part["_name_or_path"]) or ""
    return {**fields, **parts}
