"""A Hub on the loopback interface: what uploads and downloads of the Hugging Face clients need, and no more.

A test double, written from the requests that the clients make; the clients are the real ones. Every commit is a
folder of plain files. Use it as

    with LoopbackHub(tmp_path) as hub:
        subprocess.run(..., env={**os.environ, **hub.environment(tmp_path / "home")})

since the clients read their environment when they are imported.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

# What the clients upload by way of large-file storage.
LARGE = (".parquet", ".safetensors", ".arrow", ".bin", ".png")


class LoopbackHub:
    """The server and its repositories.

    Args:
        root: an empty folder.

    Attributes:
        url: the address, once the server runs.
        requests: every request so far, as "METHOD path".
        variables: of each Space, by its name.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.lock, self.requests, self.variables = Path(root), threading.Lock(), [], {}
        self.root.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> LoopbackHub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs in its environment to take this for the Hub; `home` is its cache."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": "hf_dummy",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(home),
        }

    def files(self, kind: str, repo_id: str, revision: str = "main") -> dict[str, Path]:
        """The files of a repository by their path. kind: "models", "datasets" or "spaces"."""
        folder = self.folder(kind, repo_id, revision)
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def exists(self, kind: str, repo_id: str) -> bool:
        return (self.root / kind / repo_id / "HEAD").is_file()

    def commit_of(self, kind: str, repo_id: str, revision: str) -> str:
        return (self.root / kind / repo_id / "HEAD").read_text() if revision in ("main", "HEAD") else revision

    def folder(self, kind: str, repo_id: str, revision: str) -> Path:
        return self.root / kind / repo_id / self.commit_of(kind, repo_id, revision)

    def commit(self, kind: str, repo_id: str, added: dict[str, bytes], deleted: list[str] = ()) -> str:
        """A new commit on top of the present one; returns its id."""
        with self.lock:
            kept = self.files(kind, repo_id) if self.exists(kind, repo_id) else {}
            kept = {
                name: path
                for name, path in kept.items()
                if name not in added and not any(f"{name}/".startswith(f"{gone.rstrip('/')}/") for gone in deleted)
            }
            commit = hashlib.sha1(os.urandom(16)).hexdigest()
            folder = self.root / kind / repo_id / commit
            folder.mkdir(parents=True)
            for name in (*kept, *added):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                if name in added:
                    (folder / name).write_bytes(added[name])
                else:
                    os.link(kept[name], folder / name)
            (self.root / kind / repo_id / "HEAD").write_text(commit)
            return commit


def blob_id(path: Path) -> str:
    """What git calls the file's content."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        address = urlparse(self.path)
        path, body = unquote(address.path), self.read_body()
        self.hub.requests.append(f"{self.command} {self.path}")
        for pattern, answer in (
            (r"/api/whoami-v2", self.whoami),
            (r"/api/validate-yaml", self.validate_yaml),
            (r"/api/repos/create", self.create),
            (r"/(?:(?:datasets|spaces)/)?[^/]+/[^/]+\.git/info/lfs/objects/batch", self.batch),
            (r"/lfs/(\w+)", self.store),
            (r"/api/(models|datasets|spaces)/([^/]+/[^/]+)(?:/(\w[\w-]*)(?:/(.*))?)?", self.api),
            (r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.resolve),
        ):
            if found := re.fullmatch(pattern, path):
                answer(body, address.query, *found.groups())
                return
        self.refuse("RepoNotFound")

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def whoami(self, body: bytes, query: str) -> None:
        self.answer({"name": "org", "type": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def validate_yaml(self, body: bytes, query: str) -> None:
        self.answer({"errors": [], "warnings": []})

    def create(self, body: bytes, query: str) -> None:
        wanted = json.loads(body)
        kind = wanted.get("type", "model") + "s"
        repo_id = f"{wanted.get('organization') or 'org'}/{wanted['name']}"
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{repo_id}"
        if self.hub.exists(kind, repo_id):
            self.answer({"error": "You already created this repo", "url": url}, 409)
            return
        self.hub.commit(kind, repo_id, {".gitattributes": b""})
        self.answer({"url": url, "id": repo_id, "name": repo_id})

    def batch(self, body: bytes, query: str) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}}
            known = (self.hub.root / "lfs" / wanted["oid"]).is_file()
            objects.append({**wanted, **({} if known else {"actions": upload})})
        self.answer({"transfer": "basic", "objects": objects})

    def store(self, body: bytes, query: str, oid: str) -> None:
        (self.hub.root / "lfs").mkdir(exist_ok=True)
        (self.hub.root / "lfs" / oid).write_bytes(body)
        self.answer({})

    def api(self, body: bytes, query: str, kind: str, repo_id: str, verb: str | None, rest: str | None) -> None:
        if not self.hub.exists(kind, repo_id):
            self.refuse("RepoNotFound")
            return
        revision, _, below = (rest or "main").partition("/")
        folder = self.hub.folder(kind, repo_id, revision)
        if not folder.is_dir():
            self.refuse("RevisionNotFound")
        elif verb in (None, "revision"):
            self.answer(self.description(kind, repo_id, revision))
        elif verb == "tree":
            deep = "recursive=true" in query.lower()
            found = sorted((folder / below).rglob("*") if deep else (folder / below).glob("*"))
            self.answer([self.entry(folder, path) for path in found])
        elif verb == "paths-info":
            wanted = json.loads(body) if body[:1] == b"{" else parse_qs(body.decode())
            paths = wanted.get("paths", [])
            paths = [paths] if isinstance(paths, str) else paths
            self.answer([self.entry(folder, folder / path) for path in paths if (folder / path).exists()])
        elif verb == "preupload":
            files = json.loads(body)["files"]
            modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in (file["path"] for file in files)}
            self.answer({"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]})
        elif verb == "commit":
            self.commit(body, kind, repo_id)
        elif verb == "variables":
            given = json.loads(body)
            self.hub.variables.setdefault(repo_id, {})[given["key"]] = given["value"]
            self.answer({name: {"value": value} for name, value in self.hub.variables[repo_id].items()})
        else:
            self.refuse("EntryNotFound")

    def commit(self, body: bytes, kind: str, repo_id: str) -> None:
        added, deleted = {}, []
        for record in map(json.loads, body.splitlines()):
            value = record["value"]
            if record["key"] == "file":
                added[value["path"]] = base64.b64decode(value["content"])
            elif record["key"] == "lfsFile":
                added[value["path"]] = (self.hub.root / "lfs" / value["oid"]).read_bytes()
            elif record["key"] in ("deletedFile", "deletedFolder"):
                deleted.append(value["path"])
        commit = self.hub.commit(kind, repo_id, added, deleted)
        place = repo_id if kind == "models" else f"{kind}/{repo_id}"
        url = f"{self.hub.url}/{place}/commit/{commit}"
        self.answer({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def resolve(self, body: bytes, query: str, kind: str | None, repo_id: str, revision: str, name: str) -> None:
        kind = kind or "models"
        if not self.hub.exists(kind, repo_id):
            self.refuse("RepoNotFound")
            return
        path = self.hub.folder(kind, repo_id, revision) / name
        if not path.is_file():
            self.refuse("EntryNotFound")
            return
        data = path.read_bytes()
        first, last = 0, len(data) - 1
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("ETag", f'"{blob_id(path)}"')
        self.send_header("X-Repo-Commit", self.hub.commit_of(kind, repo_id, revision))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[first : last + 1])

    def description(self, kind: str, repo_id: str, revision: str) -> dict:
        time = "2026-01-01T00:00:00.000Z"
        flags = dict.fromkeys(("private", "gated", "disabled"), False) | dict.fromkeys(("downloads", "likes"), 0)
        names = {"_id": "0", "id": repo_id, "modelId": repo_id, "sha": self.hub.commit_of(kind, repo_id, revision)}
        files = [{"rfilename": name} for name in self.hub.files(kind, repo_id, revision)]
        return names | flags | {"tags": [], "lastModified": time, "createdAt": time, "siblings": files}

    def entry(self, folder: Path, path: Path) -> dict:
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "oid": "0" * 40, "size": 0, "path": name}
        return {"type": "file", "oid": blob_id(path), "size": path.stat().st_size, "path": name}

    def read_body(self) -> bytes:
        if (self.headers.get("Transfer-Encoding") or "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while True:
            size = int(self.rfile.readline().strip() or b"0", 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return body

    def answer(self, content: object, status: int = 200, **headers: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, code: str) -> None:
        self.answer({"error": code}, 404, X_Error_Code=code, X_Error_Message=code)
