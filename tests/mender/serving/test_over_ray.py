"""Replicas come to the same catalogue; a rolling update and a killed replica cost no answers but those under way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import threading
import time
from pathlib import Path

import pytest
from small_shops import IDS

ROOT = Path(__file__).parents[3]
TOKEN = "s3cret"
WRITER = {"authorization": f"Bearer {TOKEN}"}
pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")


class Log:
    """An `EditLog` that is called as an actor is."""

    def __init__(self):
        from mender.serving.over_ray import EditLog

        self.log, self.lost = EditLog(), 0

    def __getattr__(self, name):
        method = getattr(self.log, name)

        class Remote:
            @staticmethod
            async def remote(*arguments):
                await asyncio.sleep(0)
                return method(*arguments)

        return Remote


def test_replicas_make_the_same_edits_in_the_same_order(shop_folder):
    pytest.importorskip("ray", reason="ray is not installed")
    from mender import Recommender
    from mender.serving.bodies import Refused
    from mender.serving.over_ray import EditLog, ReplicatedService

    def load():
        return Recommender.from_pretrained(shop_folder, device="cpu")

    async def scenario():
        log = Log()
        one, two = (ReplicatedService(load(), log, load=load) for _ in range(2))
        for service in (one, two):
            await service.follow()
        item = {"item_id": "new", "title": "assam"}
        results = await asyncio.gather(one.add_items([item]), two.add_items([item]), return_exceptions=True)
        assert sum(isinstance(result, Refused) for result in results) == 1
        await asyncio.gather(one.remove_item(IDS[0]), two.remove_item(IDS[1]), one.observe([("ada", IDS[2])]))
        late = ReplicatedService(load(), log, load=load)
        await late.follow()
        for service in (one, two):
            await service._catch_up()
        assert one.shop.status == two.shop.status == late.shop.status
        assert one.shop.status["removed"] == 2 and "new" in late.shop
        await two.reload()
        await one._catch_up()
        assert one.shop.status == two.shop.status and one.shop.status["removed"] == 0
        await two.remove_item(IDS[3])
        log.log = EditLog()  # the actor is lost, and started again without edits
        for service in (one, two):
            await service._catch_up()
        assert one.shop.status == two.shop.status and one.shop.status["removed"] == 0
        for service in (one, two, late):
            await service.close()

    asyncio.run(scenario())


def replicas_of(marker: str) -> list[int]:
    """Processes of the replicas of this test, which have its environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(b"ray::ServeReplica:default:mender"):
                found += [int(process.name)] * (f"MENDER_TEST={marker}".encode() in (process / "environ").read_bytes())
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="replicas are found in /proc")
def test_a_cluster_answers_through_edits_updates_and_kills(shop_folder, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    httpx = pytest.importorskip("httpx")
    monkeypatch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("MENDER_TOKEN", TOKEN)
    marker = secrets.token_hex(8)
    monkeypatch.setenv("MENDER_TEST", marker)
    from ray import serve
    from ray.cluster_utils import Cluster

    from mender.serving.over_ray import application

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=2)
        ray.init(address=cluster.address, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": 18431})
        serve.run(application(shop_folder, replicas=2))
        address, failures, answers, done = "http://127.0.0.1:18431", [], [], threading.Event()

        def ask():
            with httpx.Client(base_url=address, timeout=60) as client:
                while not done.is_set():
                    try:
                        status = client.post("/recommend", json={"preference": "find tea", "top_k": 3}).status_code
                    except httpx.TransportError as error:
                        status = repr(error)
                    (answers if status == 200 else failures).append(status)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        with httpx.Client(base_url=address, timeout=60) as client:
            assert client.delete(f"/items/{IDS[0]}", headers=WRITER).status_code == 200
            time.sleep(2)  # every replica has looked at the log
            assert all(client.get(f"/items/{IDS[0]}").status_code == 404 for _ in range(12))
            assert not failures
            serve.run(application(shop_folder, replicas=2))  # a rolling update
            assert not failures and client.get(f"/items/{IDS[0]}").status_code == 200
            assert len(answers) > 4
        os.kill(replicas_of(marker)[0], signal.SIGKILL)
        deadline = time.monotonic() + 120
        while len(replicas_of(marker)) < 2 and time.monotonic() < deadline:
            time.sleep(1)
        assert len(replicas_of(marker)) == 2  # Ray has started another
        assert len(failures) <= len(threads)  # at most the request that each client had there
        done.set()
        for thread in threads:
            thread.join()
    finally:
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
