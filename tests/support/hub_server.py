"""A small local Hugging Face Hub for the tests: repositories, commits, large files, cards. Standard library and PyYAML only.

    with HubServer(root) as hub:
        environment = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_dummy", "HF_HOME": fresh directory}

The environment has to be there before huggingface_hub is imported: give it to a subprocess. `hub.refuse = True` answers 403 to
everything that writes.
"""

import base64
import hashlib
import json
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

USER = "user"  # namespace of the (only) account; any token is accepted
LFS_EXT = (".safetensors", ".bin", ".pt", ".pth", ".parquet", ".arrow", ".npy", ".npz", ".faiss", ".index", ".model")
LFS_MIN = 10 * 1024 * 1024
PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Err(Exception):
    def __init__(self, status, code=None, msg="", headers=None, body=None):
        self.status, self.code, self.msg, self.headers, self.body = status, code, msg, headers or {}, body


class Store:
    """root/blobs/<sha256>, root/repos.json: {"type/ns/name": {"refs": {"main": sha}, "commits": {sha: {...}}}}"""

    def __init__(self, root):
        self.root, self.lock = root, threading.RLock()
        os.makedirs(os.path.join(root, "blobs"), exist_ok=True)
        self.path = os.path.join(root, "repos.json")
        self.repos = json.loads(Path(self.path).read_text()) if os.path.exists(self.path) else {}

    def save(self):
        tmp = self.path + ".tmp"
        with open(tmp, "w") as f:
            json.dump(self.repos, f)
        os.replace(tmp, self.path)

    def blob_path(self, sha256):
        return os.path.join(self.root, "blobs", sha256)

    def put_blob(self, data: bytes) -> str:
        sha = hashlib.sha256(data).hexdigest()
        if not os.path.exists(self.blob_path(sha)):
            with open(self.blob_path(sha) + ".tmp", "wb") as f:
                f.write(data)
            os.replace(self.blob_path(sha) + ".tmp", self.blob_path(sha))
        return sha

    def create(self, rtype, repo_id):
        key = f"{rtype}/{repo_id}"
        if key in self.repos:
            return False
        self.repos[key] = {"refs": {}, "commits": {}}
        attrs = "".join(f"*{e} filter=lfs diff=lfs merge=lfs -text\n" for e in LFS_EXT).encode()
        self.commit(rtype, repo_id, "main", "initial commit", {".gitattributes": self.entry(attrs, False)}, [])
        return True

    def repo(self, rtype, repo_id):
        try:
            return self.repos[f"{rtype}/{repo_id}"]
        except KeyError:
            raise Err(404, "RepoNotFound", f"Repository {rtype}/{repo_id} not found") from None

    def resolve(self, rtype, repo_id, rev):
        r = self.repo(rtype, repo_id)
        sha = r["refs"].get(rev or "main", rev)
        if sha not in r["commits"]:
            raise Err(404, "RevisionNotFound", f"Invalid rev id: {rev}")
        return sha, r["commits"][sha]["tree"]

    def entry(self, data: bytes, lfs: bool):
        sha = self.put_blob(data)
        return self.lfs_entry(sha, len(data)) if lfs else {"oid": git_oid(data), "sha256": sha, "size": len(data), "lfs": False}

    def lfs_entry(self, sha256, size):
        ptr = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return {"oid": git_oid(ptr), "sha256": sha256, "size": size, "lfs": True, "ptr": len(ptr)}

    def commit(self, rtype, repo_id, rev, title, adds, deletes):
        r = self.repo(rtype, repo_id)
        parent = r["refs"].get(rev) or r["refs"].get("main")
        tree = dict(r["commits"][parent]["tree"]) if parent else {}
        for d, is_dir in deletes:
            for p in [p for p in tree if (p.startswith(d.rstrip("/") + "/") if is_dir else p == d)]:
                del tree[p]
        tree.update(adds)
        raw = json.dumps([parent, title, tree, time.time_ns()], sort_keys=True).encode()
        sha = hashlib.sha1(raw).hexdigest()
        r["commits"][sha] = {"parent": parent, "title": title, "tree": tree, "time": time.time()}
        r["refs"][rev] = sha
        self.save()
        return sha


def tree_json(path, e, expand=False):
    d = {"type": "file", "oid": e["oid"], "size": e["size"], "path": path}
    if e["lfs"]:
        d["lfs"] = {"oid": e["sha256"], "size": e["size"], "pointerSize": e["ptr"]}
    return d


R_API = re.compile(
    r"^/api/(models|datasets|spaces)/(?P<id>[^/]+/[^/]+|[^/]+)(?:/(?P<op>revision|tree|preupload|commit|paths-info|branch|tag|refs|commits)(?:/(?P<rest>.*))?)?$"
)
R_RESOLVE = re.compile(r"^/(?P<t>datasets/|spaces/)?(?P<id>[^/]+/[^/]+|[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)$")
R_LFS = re.compile(r"^/(?P<t>datasets/|spaces/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch$")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "hub"

    def log_message(self, *a):
        pass

    @property
    def store(self) -> Store:
        return self.server.store

    @property
    def base(self):
        return f"http://{self.headers.get('Host')}"

    def body(self) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            out = b""
            while n := int(self.rfile.readline().split(b";")[0], 16):
                out += self.rfile.read(n)
                self.rfile.readline()
            self.rfile.readline()
            return out
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, status, data=b"", headers=None, ctype="application/json; charset=utf-8", length=None):
        if not isinstance(data, bytes):
            data = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", ctype)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for k, v in (headers or {}).items():
            self.send_header(k, v)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.server.record(self.command, self.path, status)

    def handle_any(self):
        raw = self.body()
        try:
            with self.store.lock:
                self.route(raw)
        except Err as e:
            h = dict(e.headers)
            if e.code:
                h.update({"X-Error-Code": e.code, "X-Error-Message": e.msg})
            self.send(e.status, e.body if e.body is not None else {"error": e.msg}, h)
        except Exception as e:
            self.send(500, {"error": f"{type(e).__name__}: {e}"})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def route(self, raw):
        u = urlsplit(self.path)
        if self.server.refuse and self.command in ("POST", "PUT", "DELETE"):
            raise Err(403, None, "You don't have the rights to write here")
        path, q, m = u.path, parse_qs(u.query), self.command
        # the revision may be percent-encoded ("refs%2Fpr%2F1"), so match before unquoting
        if path == "/api/repos/create" and m == "POST":
            b = json.loads(raw)
            rtype, rid = b.get("type") or "model", f"{b.get('organization') or USER}/{b['name']}"
            url = f"{self.base}/{PREFIX[rtype]}{rid}"
            if not self.store.create(rtype, rid):
                raise Err(409, None, "You already created this repo", body={"error": "You already created this repo", "url": url})
            return self.send(200, {"url": url, "name": rid, "id": rid})
        if path == "/api/repos/delete" and m == "DELETE":
            b = json.loads(raw)
            self.store.repos.pop(f"{b.get('type') or 'model'}/{b.get('organization') or USER}/{b['name']}", None)
            self.store.save()
            return self.send(200, {})
        if path == "/api/whoami-v2":
            return self.send(
                200,
                {"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token", "accessToken": {"role": "write"}}},
            )
        if path == "/api/validate-yaml" and m == "POST":
            return self.validate_yaml(json.loads(raw).get("content", ""))
        if path.startswith("/_lfs/"):
            sha = path.split("/")[2]
            if m == "PUT":
                if hashlib.sha256(raw).hexdigest() != sha:
                    raise Err(400, None, "sha256 mismatch")
                self.store.put_blob(raw)
            return self.send(200, {})
        if (g := R_LFS.match(path)) and m == "POST":
            objs = []
            for o in json.loads(raw)["objects"]:
                d = {"oid": o["oid"], "size": o["size"]}
                if not os.path.exists(self.store.blob_path(o["oid"])):
                    d["actions"] = {
                        "upload": {"href": f"{self.base}/_lfs/{o['oid']}"},
                        "verify": {"href": f"{self.base}/_lfs/{o['oid']}/verify"},
                    }
                objs.append(d)
            return self.send(200, {"transfer": "basic", "objects": objs}, ctype="application/vnd.git-lfs+json")
        if g := R_RESOLVE.match(path):
            return self.resolve_file((g["t"] or "models/")[:-2], unquote(g["id"]), unquote(g["rev"]), unquote(g["path"]))
        if g := R_API.match(path):
            return self.api(g[1][:-1], unquote(g["id"]), g["op"], g["rest"], q, raw)
        raise Err(404, None, f"no route {m} {path}")

    def validate_yaml(self, content):
        errors = []
        g = re.match(r"^---\s*\n(.*?)\n---\s*(\n|$)", content, re.S)
        if g:
            try:
                import yaml

                if not isinstance(yaml.safe_load(g[1]) or {}, dict):
                    errors.append({"message": "metadata must be a mapping"})
            except ImportError:
                pass
            except Exception as e:
                errors.append({"message": str(e)})
        warn = [] if g else [{"message": "empty or missing yaml metadata in repo card"}]
        self.send(400 if errors else 200, {"errors": errors, "warnings": warn})

    def resolve_file(self, rtype, rid, rev, fpath):
        sha, tree = self.store.resolve(rtype, rid, rev)
        if fpath not in tree:
            raise Err(404, "EntryNotFound", f"Entry not found: {fpath}", {"X-Repo-Commit": sha})
        e = tree[fpath]
        h = {"X-Repo-Commit": sha, "ETag": f'"{e["sha256"] if e["lfs"] else e["oid"]}"', "Accept-Ranges": "bytes"}
        if e["lfs"]:  # the real Hub redirects to a CDN here; serving the bytes directly is accepted by the clients
            h.update({"X-Linked-Etag": f'"{e["sha256"]}"', "X-Linked-Size": str(e["size"])})
        ctype = "application/octet-stream"
        if self.command == "HEAD":
            return self.send(200, b"", h, ctype, length=e["size"])
        with open(self.store.blob_path(e["sha256"]), "rb") as f:
            data = f.read()
        g = re.match(r"bytes=(\d*)-(\d*)$", self.headers.get("Range") or "")
        if g and (g[1] or g[2]):
            n = len(data)
            a, b = (max(n - int(g[2]), 0), n - 1) if not g[1] else (int(g[1]), min(int(g[2]) if g[2] else n - 1, n - 1))
            if a >= n:
                raise Err(416, None, "range", {"Content-Range": f"bytes */{n}"})
            h["Content-Range"] = f"bytes {a}-{b}/{n}"
            return self.send(206, data[a : b + 1], h, ctype)
        self.send(200, data, h, ctype)

    def api(self, rtype, rid, op, rest, q, raw):
        s, m = self.store, self.command
        if op in (None, "revision"):
            sha, tree = s.resolve(rtype, rid, unquote(rest) if rest else None)
            info = {
                "_id": hashlib.md5(rid.encode()).hexdigest()[:24],
                "id": rid,
                "sha": sha,
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "author": rid.split("/")[0],
                "createdAt": "2024-01-01T00:00:00.000Z",
                "lastModified": "2024-01-01T00:00:00.000Z",
                "siblings": [
                    {"rfilename": p, **({"size": e["size"], "blobId": e["oid"]} if "blobs" in q else {})}
                    for p, e in sorted(tree.items())
                ],
            }
            if rtype == "model":
                info.update(self.card_fields(tree))
            return self.send(200, info)
        if op == "refs":
            r = s.repo(rtype, rid)
            return self.send(
                200,
                {
                    "branches": [{"name": k, "ref": f"refs/heads/{k}", "targetCommit": v} for k, v in r["refs"].items()],
                    "converts": [],
                    "tags": [],
                },
            )
        if op == "branch" and m == "POST":
            sha, _ = s.resolve(rtype, rid, json.loads(raw or b"{}").get("startingPoint"))
            refs = s.repo(rtype, rid)["refs"]
            if unquote(rest) in refs:
                raise Err(409, None, "Reference already exists")
            refs[unquote(rest)] = sha
            s.save()
            return self.send(200, {})
        if op == "commits":
            r = s.repo(rtype, rid)
            sha, _ = s.resolve(rtype, rid, unquote(rest))
            out = []
            while sha:
                c = r["commits"][sha]
                out.append({"id": sha, "title": c["title"], "message": "", "authors": [], "date": "2024-01-01T00:00:00.000Z"})
                sha = c["parent"]
            return self.send(200, out)
        if op == "tree":
            rev, _, sub = rest.partition("/")
            sha, tree = s.resolve(rtype, rid, unquote(rev))
            sub = unquote(sub).strip("/")
            pre = sub + "/" if sub else ""
            files = {p: e for p, e in tree.items() if p.startswith(pre)}
            if sub and not files:
                raise Err(404, "EntryNotFound", f"{sub} does not exist", {"X-Repo-Commit": sha})
            rec = (q.get("recursive") or ["false"])[0].lower() in ("true", "1")
            out, dirs = [], set()
            for p, e in sorted(files.items()):
                parts = p[len(pre) :].split("/")
                for i in range(1, len(parts) if rec else min(len(parts), 2)):
                    dirs.add(pre + "/".join(parts[:i]))
                if rec or len(parts) == 1:
                    out.append(tree_json(p, e))
            out += [
                {"type": "directory", "oid": hashlib.sha1(d.encode()).hexdigest(), "size": 0, "path": d} for d in sorted(dirs)
            ]
            return self.send(200, out)
        if op == "paths-info" and m == "POST":
            sha, tree = s.resolve(rtype, rid, unquote(rest))
            if "json" in (self.headers.get("Content-Type") or ""):
                paths = json.loads(raw)["paths"]
            else:
                paths = parse_qs(raw.decode()).get("paths", [])
            out = []
            for p in paths:
                if p in tree:
                    out.append(tree_json(p, tree[p]))
                elif any(t.startswith(p.rstrip("/") + "/") for t in tree):
                    out.append(
                        {"type": "directory", "oid": hashlib.sha1(p.encode()).hexdigest(), "size": 0, "path": p.rstrip("/")}
                    )
            return self.send(200, out)
        if op == "preupload" and m == "POST":
            _, tree = s.resolve(rtype, rid, unquote(rest))
            out = []
            for f in json.loads(raw)["files"]:
                lfs = f["path"].endswith(LFS_EXT) or f["size"] > LFS_MIN
                e = tree.get(f["path"])
                d = {"path": f["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
                if e:
                    d["oid"] = e["sha256"] if e["lfs"] else e["oid"]
                out.append(d)
            return self.send(200, {"files": out})
        if op == "commit" and m == "POST":
            rev = unquote(rest)
            s.resolve(rtype, rid, rev)
            adds, dels, title = {}, [], ""
            for line in raw.splitlines():
                if not line.strip():
                    continue
                o = json.loads(line)
                k, v = o["key"], o["value"]
                if k == "header":
                    title = v["summary"]
                elif k == "file":
                    adds[v["path"]] = s.entry(base64.b64decode(v["content"]), False)
                elif k == "lfsFile":
                    if not os.path.exists(s.blob_path(v["oid"])):
                        raise Err(400, None, f"LFS object {v['oid']} was never uploaded")
                    adds[v["path"]] = s.lfs_entry(v["oid"], os.path.getsize(s.blob_path(v["oid"])))
                elif k in ("deletedFile", "deletedFolder"):
                    dels.append((v["path"], k == "deletedFolder"))
            sha = s.commit(rtype, rid, rev, title, adds, dels)
            return self.send(
                200,
                {
                    "success": True,
                    "commitOid": sha,
                    "commitUrl": f"{self.base}/{PREFIX[rtype]}{rid}/commit/{sha}",
                    "hookOutput": "",
                },
            )
        raise Err(404, None, f"no route {m} {op}")

    def card_fields(self, tree):
        """pipeline_tag / library_name / tags from README.md, so that model_info() and pipeline(task=None) work"""
        out = {"tags": []}
        if "README.md" in tree:
            try:
                import yaml

                text = Path(self.store.blob_path(tree["README.md"]["sha256"])).read_text(encoding="utf-8")
                g = re.match(r"^---\s*\n(.*?)\n---", text, re.S)
                card = (yaml.safe_load(g[1]) or {}) if g else {}
                out.update(cardData=card, tags=list(card.get("tags") or []))
                for k in ("pipeline_tag", "library_name"):
                    if card.get(k):
                        out[k] = card[k]
            except Exception:
                pass
        return out


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, root, port=0, log=None):
        self.store, self.calls, self.log, self.refuse = Store(root), [], log, False
        super().__init__(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def record(self, method, path, status):
        self.calls.append((method, path, status))
        if self.log:
            with open(self.log, "a") as f:
                f.write(f"{method} {path} {status}\n")

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *a):
        self.shutdown()
        self.server_close()
