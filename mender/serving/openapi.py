"""What the OpenAPI page says of bodies and answers, with examples; its limits are those of the server."""

from __future__ import annotations

from typing import Any

from mender.serving.bodies import Limits

__all__ = ["answers", "body", "description", "schemas"]

NUMBER = {"type": "number", "minimum": -1e9, "maximum": 1e9}
description = """\
Recommendations by what people say they want and what they bought.

`POST /recommend` takes one request or a list of them. Every error is `{"error": "one sentence"}`: 400 for a request
that cannot be answered, 401 and 403 for a missing or wrong token, 404 for an unknown item, 408 for a body that does not
arrive, 413 for one that is too large, 415 for another type than JSON, 503 with Retry-After where too many wait.
"""


def schemas(limits: Limits) -> dict[str, Any]:
    """Schemas by name, for `components` of the description."""

    def text(most: int = limits.text) -> dict[str, Any]:
        return {"type": "string", "maxLength": most}

    def listed(schema: dict[str, Any], most: int) -> dict[str, Any]:
        return {"type": "array", "items": schema, "maxItems": most}

    def told(schema: dict[str, Any], words: str) -> dict[str, Any]:
        return {**schema, "description": words}

    texts = [text(), listed(text(), limits.texts)]
    weighted = {"type": "object", "additionalProperties": NUMBER, "maxProperties": limits.texts}
    wish = {"anyOf": [*texts, weighted, {"type": "null"}]}
    ids, some = {"type": "string"}, {"type": ["object", "null"], "additionalProperties": NUMBER}
    flag = {"type": ["boolean", "null"], "default": False}
    few = {"type": ["array", "null"], "items": ids, "maxItems": limits.ids}
    request = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "preference": told(wish, "What somebody typed: a text, several, or texts with weights."),
            "inferred": told(wish, "Instead, a preference that nobody typed."),
            "history": told({**few, "maxItems": limits.history}, "Ids of what the person bought, oldest first."),
            "avoid": told({"anyOf": [*texts, {"type": "null"}]}, "What is not wanted; what matches is ranked lower."),
            "strict": told(flag, "Whether items that name a phrase of `avoid` are left out."),
            "exclude": told(few, "Ids that must not be returned."),
            "allowed": told(few, "The only ids that may be returned."),
            "prior": told({**some, "maxProperties": limits.ids}, "Numbers to add to the scores of items, by id."),
            "weights": told(some, "Factors for the weights of experts."),
            "dial": told({**NUMBER, "type": ["number", "null"]}, "How far the preference moves the result."),
            "top_k": {"type": ["integer", "null"], "minimum": 1, "maximum": limits.top_k},
            "why": told(flag, "Whether to say what each part of the model contributed."),
            "fit": told(flag, "Whether to say how probable it is that anything fits."),
            "unknown_items": {"enum": ["error", "skip", None], "default": "error"},
            "num_beams": {"type": ["integer", "null"], "minimum": 1, "maximum": limits.num_beams},
        },
    }
    recommendation = {
        "type": "object",
        "required": ["item_id", "title", "score"],
        "properties": {
            "item_id": {"type": "string"},
            "title": {"type": "string"},
            "score": {"type": "number"},
            "why": {"type": "object", "additionalProperties": {"type": "number"}},
            "fit": {"type": ["number", "null"]},
        },
    }
    answer = {
        "type": "object",
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": _ref("Recommendation")}},
    }
    described = {"title": text(10 * limits.text), "text": text(10 * limits.text), "aspects": listed(text(), 10_000)}
    counts = {name: {"type": "integer"} for name in ("items", "added", "removed", "observed")}
    return {
        "Request": request,
        "Requests": {
            "anyOf": [
                _ref("Request"),
                text(),
                {"minItems": 1, **listed({"anyOf": [_ref("Request"), text()]}, limits.requests)},
            ]
        },
        "Recommendation": recommendation,
        "Answer": answer,
        "Answers": {"anyOf": [_ref("Answer"), {"type": "array", "items": _ref("Answer")}]},
        "Item": {
            "type": "object",
            "additionalProperties": False,
            "required": ["item_id", "title"],
            "properties": {"item_id": {"type": "string", "minLength": 1}, **described},
        },
        "Items": {"anyOf": [_ref("Item"), {"minItems": 1, **listed(_ref("Item"), limits.edits)}]},
        "Change": {"type": "object", "additionalProperties": False, "properties": described},
        "Purchases": {
            "type": "array",
            "maxItems": limits.edits,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["user_id", "item_id"],
                "properties": dict.fromkeys(("user_id", "item_id"), {"minLength": 1, **text()}),
            },
        },
        "Status": {
            "type": "object",
            "required": [*counts, "behind", "advice"],
            "properties": {**counts, "behind": {"type": "number"}, "advice": listed({"type": "string"}, 10)},
        },
        "State": {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}},
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    }


EXAMPLES = {
    "Requests": {
        "a wish": {"preference": "tea with a malty brew", "top_k": 3},
        "a wish, a history and something to avoid": {
            "preference": "a gift for a gardener",
            "history": ["000017", "000003"],
            "exclude": ["000017", "000003"],
            "avoid": "plastic",
            "strict": True,
        },
        "several requests": ["black tea", {"preference": {"candles": 2, "vanilla": 1}, "top_k": 5}],
    },
    "Items": {"one item": {"item_id": "new-1", "title": "Assam", "text": "Assam. Black tea with a malty brew."}},
    "Change": {"another title": {"title": "Assam, second flush"}},
    "Purchases": {"one purchase": [{"user_id": "ada", "item_id": "000017"}]},
}


def body(name: str) -> dict[str, Any]:
    """Additions to an operation whose body has a schema of this name."""
    examples = {title: {"value": value} for title, value in EXAMPLES[name].items()}
    content = {"application/json": {"schema": _ref(name), "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def answers(name: str, *statuses: int) -> dict[int | str, Any]:
    """Answers of an operation: 200 with a schema of this name, and errors."""
    described = {
        400: "What was sent cannot be answered",
        401: "A token is missing or wrong",
        403: "The server was started without a token for this",
        404: "No such item",
        408: "The body did not arrive in time",
        409: "The server has no folder to load from",
        413: "Too large",
        415: "Not JSON",
        500: "The server failed",
        503: "Too busy, or about to stop",
    }
    content = {"application/json": {"schema": _ref("Error")}}
    good = {200: {"description": "Done", "content": {"application/json": {"schema": _ref(name)}}}}
    return good | {status: {"description": described[status], "content": content} for status in statuses}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
