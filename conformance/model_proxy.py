"""A proxy that lets OpenAI's own tests, which name OpenAI's models and made-up ids, ask a gateway.

It puts our models in the place of theirs, and objects that exist in the place of their ids: those
are made when it starts, as far as the gateway keeps such objects.
"""

import http.client
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from conformance.checks import CheckTarget
from conformance.fresh_objects import with_fresh_objects
from conformance.http_answers import Answer, ask

_MODEL_PATH = re.compile(r"^/models/[^/?]+")
_FORM_MODEL = re.compile(rb'(name="model"\r\n(?:[^\r\n]+\r\n)*\r\n)[^\r\n]*')
_HOP = frozenset({"host", "content-length", "connection", "transfer-encoding", "accept-encoding"})
_CHAT = {"messages": [{"role": "user", "content": "Hi"}], "store": True, "max_tokens": 4}
_SEEDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "completion_id": ("/v1/chat/completions", _CHAT),
    "resp_677efb5139a88190b512bc3fef8e535d": ("/v1/responses", {"input": "Hi", "store": True}),
    "response_id": ("/v1/responses", {"input": "Hi", "store": True}),
    "conv_123": ("/v1/conversations", {}),
    "conversation_id": ("/v1/conversations", {}),
}
"""Ids of OpenAI's tests, and the request that makes an object for each."""
_LISTS = {
    "completion_id": "/v1/chat/completions/ID",
    "resp_677efb5139a88190b512bc3fef8e535d": "/v1/responses/ID",
    "response_id": "/v1/responses/ID",
    "conv_123": "/v1/conversations/ID",
    "conversation_id": "/v1/conversations/ID",
}
"""Where such an object is asked for: one that is not kept takes no id's place."""


@contextmanager
def model_proxy(target: CheckTarget) -> Iterator[str]:
    """Run the proxy in a thread; its address, without `/v1`."""
    ids = dict(_seeded(target))

    class ProxyHandler(_Handler):
        gateway, objects = target, ids

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ProxyHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _seeded(target: CheckTarget) -> Iterator[tuple[str, str]]:
    for id_, (path, fields) in _SEEDS.items():
        body = json.dumps({"model": target.model, **fields}).encode()
        made = ask(target.url, "POST", path, body)
        if made.status != 200:
            continue
        own = made.json["id"]
        if ask(target.url, "GET", _LISTS[id_].replace("ID", own)).status == 200:
            yield id_, own


class _Handler(http.server.BaseHTTPRequestHandler):
    gateway: CheckTarget
    objects: Mapping[str, str]

    def do_GET(self) -> None:
        """Pass a request on."""
        self._pass_on()

    do_POST = do_DELETE = do_PATCH = do_PUT = do_GET  # noqa: N815 - the base class looks for them

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _pass_on(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else None
        if body is None and self.headers.get("transfer-encoding"):
            body = b"".join(self._chunks())
        headers = {k.lower(): v for k, v in self.headers.items() if k.lower() not in _HOP}
        path, body = with_fresh_objects(self.gateway, self._path(), self._body(body))
        try:
            answer = ask(self.gateway.url, self.command, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            answer = Answer(502, {}, str(error).encode())
        self._answer(answer)

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name not in _HOP:
                self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _path(self) -> str:
        path = self.path.removeprefix("/v1")
        path = _MODEL_PATH.sub(f"/models/{self.gateway.model}", path)
        for theirs, ours in self.objects.items():
            path = path.replace(f"/{theirs}", f"/{ours}")
        return f"/v1{path}"

    def _body(self, body: bytes | None) -> bytes | None:
        is_embedding = "/embeddings" in self.path
        model = self.gateway.embedding_model if is_embedding else self.gateway.model
        if not body:
            return body
        if "json" not in self.headers.get("content-type", ""):
            return _FORM_MODEL.sub(rb"\g<1>" + model.encode(), body)
        try:
            fields = json.loads(body)
        except ValueError:
            return body
        if isinstance(fields, dict) and "model" in fields:
            fields["model"] = model
            return json.dumps(fields).encode()
        return body
