"""Over HTTP the answers are those of the recommender, and whatever else comes is refused in one sentence."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import ExitStack

import pytest
from small_shops import IDS

from mender import Recommender, Request
from mender.serving.bodies import Limits, Query
from mender.serving.service import Service

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="httpx is not installed")
TOKEN = "s3cret"
WRITER = {"authorization": f"Bearer {TOKEN}"}
NEW = {"item_id": "new", "title": "assam", "text": "assam tea"}
EDITS = [
    ("POST", "/items", NEW),
    ("PATCH", f"/items/{IDS[0]}", {"title": "other"}),
    ("DELETE", f"/items/{IDS[0]}", None),
    ("POST", "/observe", [{"user_id": "ada", "item_id": IDS[0]}]),
    ("POST", "/reload", None),
]


@pytest.fixture
def client_of(shop, shop_folder):
    """Makes clients of an application over the shop."""
    from mender.serving.app import create_app

    with ExitStack() as stack:

        def make(service=None, *, token=TOKEN, read_token=None, log_texts=False, **settings):
            def load():
                return Recommender.from_pretrained(shop_folder, device="cpu")

            app = create_app(
                service or (lambda measures: Service(shop, load=load, observe=measures.batch, **settings)),
                token=token,
                read_token=read_token,
                log_texts=log_texts,
            )
            return stack.enter_context(testclient.TestClient(app, raise_server_exceptions=False))

        yield make


@pytest.fixture
def client(client_of):
    return client_of()


def error_of(answer, status):
    assert answer.status_code == status and {*answer.json()} == {"error"}, answer.text
    return answer.json()["error"]


def same(found, expected):
    return all(
        (one["item_id"], one["title"]) == (two["item_id"], two["title"]) and abs(one["score"] - two["score"]) < 1e-4
        for one, two in zip(found, expected, strict=True)
    )


def test_answers_are_those_of_the_recommender(client, shop):
    request = {"preference": "find tea", "history": IDS[:3], "exclude": IDS[:3], "top_k": 4}
    found = client.post("/recommend", json=request).json()
    assert {*found} == {"items"} and same(found["items"], shop.recommend(**request))


def test_a_list_is_answered_by_a_list(client, shop):
    requests = ["find tea", {"history": IDS[:2], "top_k": 2}, {"preference": "rose", "num_beams": 50, "why": True}]
    found = client.post("/recommend", json=requests).json()
    for one, request in zip(found, requests, strict=True):
        arguments = {"preference": request} if isinstance(request, str) else request
        assert same(one["items"], shop.recommend(**arguments))
    assert {*found[2]["items"][0]["why"]} == {*shop.recommend(**requests[2])[0]["why"]}


def test_requests_that_cannot_be_answered_cost_others_nothing(shop):
    good, bad = Query(Request(preference="find tea", top_k=2)), Query(Request(history=["nobody"]))
    expected = shop.recommend("find tea", top_k=2)
    found = Service(shop)._answer([good, bad, good, Query(Request(history=["nobody"]), "skip"), good])
    assert all(same(found[place], expected) for place in (0, 2, 4))
    assert "nobody" in str(found[1]) and "neither" in str(found[3])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "the request is empty"),
        ({"history": ["item-te"]}, "item-te"),
        ({"preference": "tea", "allowed": []}, "item"),
        ({"preference": "tea", "weights": {"nobody": 1}}, "nobody"),
        ({"preference": "\ud800"}, "surrogate"),
        ({"preference": "tea", "prior": {"nobody": 1}}, "nobody"),
    ],
)
def test_what_the_model_refuses_is_told(client, body, words):
    answer = client.post("/recommend", content=json.dumps(body), headers={"content-type": "application/json"})
    assert words in error_of(answer, 400)


def test_other_things_than_json_are_refused(client_of):
    client = client_of(limits=Limits(body=100))
    as_json = {"content-type": "application/json"}
    assert "JSON" in error_of(client.post("/recommend", content=b"{", headers=as_json), 400)
    assert "application/json" in error_of(client.post("/recommend", data={"a": "b"}), 415)
    assert "100 bytes" in error_of(client.post("/recommend", content=b"1" * 101, headers=as_json), 413)
    streamed = client.post("/recommend", content=iter([b" " * 60] * 3), headers=as_json)
    assert "100 bytes" in error_of(streamed, 413)
    assert "/docs" in error_of(client.get("/nothing"), 404)
    assert "/docs" in error_of(client.get("/recommend"), 405)


def test_items_come_and_go(client, shop):
    before = shop.recommend("assam tea", top_k=3)
    assert client.post("/items", json=NEW, headers=WRITER).json()["items"] == len(IDS) + 1
    assert client.get("/items/new").json()["title"] == "assam"
    assert client.patch("/items/new", json={"title": "darjeeling"}, headers=WRITER).status_code == 200
    assert client.get("/items/new").json()["title"] == "darjeeling"
    answer = client.post("/recommend", json={"preference": "assam tea", "allowed": ["new"]})
    assert answer.json()["items"][0]["item_id"] == "new"
    assert "new" in error_of(client.post("/items", json=NEW, headers=WRITER), 400)
    assert client.delete("/items/new", headers=WRITER).json()["removed"] == 1
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"title": "x"})):
        assert "new" in error_of(client.request(method, "/items/new", json=body, headers=WRITER), 404)
    assert same(client.post("/recommend", json={"preference": "assam tea", "top_k": 3}).json()["items"], before)


def test_a_reload_brings_back_what_the_folder_has(client):
    client.delete(f"/items/{IDS[0]}", headers=WRITER)
    assert client.get(f"/items/{IDS[0]}").status_code == 404
    assert client.post("/reload", headers=WRITER).json()["removed"] == 0
    assert client.get(f"/items/{IDS[0]}").status_code == 200


def test_a_reload_that_fails_leaves_what_serves(client_of, shop):
    def broken():
        raise ValueError("weights are damaged")

    client = client_of(Service(shop, load=broken))
    assert "damaged" in error_of(client.post("/reload", headers=WRITER), 500)
    assert client.post("/recommend", json="find tea").status_code == 200


def test_purchases_are_counted(client):
    assert client.post("/observe", json=EDITS[3][2], headers=WRITER).json()["observed"] == 1
    assert "'x'" in error_of(client.post("/observe", json=[{"user_id": "a", "item_id": "x"}], headers=WRITER), 400)


@pytest.mark.parametrize(("method", "path", "body"), EDITS)
def test_changes_need_a_token(client_of, method, path, body):
    def ask(client, **headers):
        return client.request(method, path, json=body, headers=headers)

    client = client_of(read_token="reader")
    for wrong in ("", "Bearer", "Bearer other", "Bearer reader", f"Basic {TOKEN}", "Bearer é"):
        answer = ask(client, authorization=wrong.encode("latin-1"))
        error_of(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert ask(client, **WRITER).status_code == 200
    assert "MENDER_TOKEN" in error_of(ask(client_of(token=None), **WRITER), 403)


def test_asking_may_need_a_token(client_of):
    client = client_of(read_token="reader")
    for ask in (lambda **headers: client.post("/recommend", json="tea", headers=headers),
                lambda **headers: client.get(f"/items/{IDS[0]}", headers=headers),
                lambda **headers: client.get("/metrics", headers=headers)):  # fmt: skip
        error_of(ask(), 401)
        assert ask(authorization="Bearer reader").status_code == ask(**WRITER).status_code == 200
    assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_too_many_and_too_slow_are_told_to_come_again(client_of, shop):
    service = Service(shop, capacity=1, limits=Limits(timeout=0.3))
    started, go = threading.Event(), threading.Event()

    def stuck(queries):
        started.set()
        go.wait(10)
        return [[] for _ in queries]

    service.queue._answer = stuck
    client, answers = client_of(service), []
    threads = [threading.Thread(target=lambda: answers.append(client.post("/recommend", json="tea")))]
    threads[0].start()
    assert started.wait(10)
    threads.append(threading.Thread(target=lambda: answers.append(client.post("/recommend", json="tea"))))
    threads[1].start()
    while not len(service.queue):
        pass
    full = client.post("/recommend", json="tea")
    assert "waiting" in error_of(full, 503) and int(full.headers["retry-after"]) >= 1
    assert "waiting" in error_of(client.get("/ready"), 503)
    for thread in threads:
        thread.join()
    go.set()
    assert all("0.3 s" in error_of(answer, 503) for answer in answers)


def test_failures_tell_clients_nothing_and_the_log_where(client_of, shop, caplog):
    service = Service(shop)

    def broken(queries):
        raise RuntimeError("secret words of a user")

    service.queue._answer = broken
    with caplog.at_level(logging.INFO, "mender.serving"):
        error = error_of(client_of(service).post("/recommend", json="tea"), 500)
    assert "secret" not in error + caplog.text + str([vars(record) for record in caplog.records])
    (failure,) = [record for record in caplog.records if record.getMessage() == "failure"]
    assert failure.fields["error"] == "RuntimeError" and any("broken" in place for place in failure.fields["places"])


@pytest.mark.parametrize("log_texts", [False, True])
def test_the_log_has_texts_only_if_asked(client_of, caplog, log_texts):
    client = client_of(log_texts=log_texts)
    with caplog.at_level(logging.INFO, "mender.serving"):
        client.post("/recommend", json={"preference": "private wish"})
        client.post("/recommend", json={"history": ["private-id"]})
        client.get("/items/private-id")
    shown = str([record.fields for record in caplog.records])
    assert ("private" in shown) == log_texts and "'status': 200" in shown and "'status': 400" in shown


def test_measures_count_answers_and_batches(client):
    client.post("/recommend", json=["tea", "rose"])
    client.get("/items/nobody")
    text = client.get("/metrics").text
    assert 'mender_http_requests_total{path="/recommend",status="200"} 1.0' in text
    assert 'path="/items/{item_id:path}",status="404"' in text
    assert "mender_batch_size_count 1.0" in text and "mender_batch_size_sum 2.0" in text
    assert f"mender_items {len(IDS)}.0" in text


def test_the_description_fits_what_is_served(client):
    found = client.get("/openapi.json").json()
    assert client.get("/docs").status_code == 200
    assert {"/recommend", "/items", "/observe", "/reload", "/health", "/ready", "/metrics"} <= {*found["paths"]}
    names = {name for name in found["components"]["schemas"]["Request"]["properties"]}
    assert names == {*Request.__dataclass_fields__, "unknown_items", "num_beams"}
    for path in found["paths"].values():
        for operation in path.values():
            assert ("security" in operation) == (operation["tags"] == ["write"])
    examples = found["paths"]["/recommend"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        value = json.loads(json.dumps(example["value"]).replace("0000", "item-"))
        skip = [{**one, "unknown_items": "skip"} if isinstance(one, dict) else one
                for one in (value if isinstance(value, list) else [value])]  # fmt: skip
        assert client.post("/recommend", json=skip).status_code == 200
