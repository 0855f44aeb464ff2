"""An edit leaves the version that serves as it is, and copies only what it changes."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from small_shops import IDS, shop_of

NEW = {"item_id": "new", "title": "mint soap"}


@pytest.mark.parametrize("name", ["mender", "mender-lite", "sasrec"])
def test_the_version_before_an_edit_stays(name, tmp_path):
    shop = shop_of(name, tmp_path)
    old, request = shop._version, {"history": IDS[:3], "top_k": 200}
    before, settings = shop.recommend(**request), old.model.config.to_dict()
    tables = {place: table.clone() for place, table in old.model.named_buffers()}
    if name != "sasrec":
        shop.add_items([NEW])
        shop.update_items([{"item_id": IDS[0], "title": "rose lamp"}])
    shop.remove_items([IDS[1]])
    assert old.model.config.to_dict() == settings != shop.model.config.to_dict()
    assert {place for place, _ in old.model.named_buffers()} == {*tables}
    assert all(torch.equal(table, tables[place]) for place, table in old.model.named_buffers())
    assert type(shop)(old.model, old.processor).recommend(**request) == before


def test_versions_go_when_nothing_uses_them(tmp_path):
    """A server leaves the first model out of garbage collection, so it must be in no cycle."""
    shop = shop_of("mender", tmp_path)
    gc.collect()
    gc.disable()
    try:
        versions = []
        for edit, given in (("add_items", [NEW]), ("update_items", [{**NEW, "title": "mug"}]), ("remove_items", [])):
            shop.recommend("find teaa", history=IDS[:3])
            versions.append([weakref.ref(part) for part in (shop._version, shop.model, shop.processor)])
            getattr(shop, edit)(given)
        shop.recommend("find teaa")
        assert not any(part() for version in versions for part in version)
        versions = [weakref.ref(part) for part in (shop._version, shop.model, shop.processor)]
        del shop
        assert not any(part() for part in versions)
    finally:
        gc.enable()


def test_what_no_edit_changes_is_shared(tmp_path):
    shop = shop_of("mender", tmp_path)
    old, decoder = shop.model, shop.model._search_decoder(torch.zeros(1, 1, shop.model.config.decoder.d_model))
    shop.add_items([NEW])
    new = shop.model
    assert new.encoder.text_encoder is old.encoder.text_encoder and new.decoder is old.decoder
    assert new.config.encoder.text_encoder is new.encoder.text_encoder.config
    assert new.config.experts is new.experts.config is not old.config.experts
    assert new.experts is not old.experts and new.encoder is not old.encoder
    assert new._folded[1] is decoder
