"""What a configuration says about its code; tests/hub proves that the code then loads."""

from __future__ import annotations

import sys

from modeling_mender import MenderConfig, PopularityConfig, SasRecConfig, TextRetrievalConfig

SHAPE = {"codebook_sizes": [4, 4], "num_items": 3}


def test_every_name_leads_to_a_class():
    for config in (MenderConfig(**SHAPE), PopularityConfig(3), SasRecConfig(3), TextRetrievalConfig()):
        written = config.to_dict()
        names = [*written["auto_map"].values(), written["custom_pipelines"]["generative-retrieval"]["impl"]]
        for name in names:
            module, _, cls = name.partition(".")
            assert hasattr(sys.modules[f"modeling_mender.{module}"], cls)
        assert set(written["auto_map"]) >= {"AutoConfig", "AutoModel"}


def test_installed_code_asks_for_no_trust():
    config = MenderConfig(**SHAPE)
    again = MenderConfig.from_dict(config.to_dict())
    assert not hasattr(again, "custom_pipelines")
    assert again.to_dict() == config.to_dict()


def test_another_repository_is_not_referred_to():
    own, foreign = "my_config.MyConfig", "org/first--modeling_mender.MenderForGenerativeRetrieval"
    config = MenderConfig(**SHAPE, auto_map={"AutoConfig": own, "AutoModel": foreign})
    written = config.to_dict()["auto_map"]
    assert written["AutoConfig"] == own
    assert written["AutoModel"] == "modeling_mender.MenderForGenerativeRetrieval"
