"""A server between a client and a real one: it passes requests on, as a proxy does too, or answers them by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import requests
from serving import serving

_OF_ONE_STEP = {"host", "connection", "content-length", "transfer-encoding", "content-encoding", "keep-alive"}


@contextmanager
def between(address: str, answer: Callable[[str, str], tuple[int, str] | None] = lambda *_: None) -> Iterator[str]:
    """Its address while the block runs; `answer` is given method and path, and returns a status and a text, or None."""

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            asked = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            own = answer(self.command, asked.path)
            headers: dict[str, str] = {}
            if own is None:
                with requests.Session() as session:
                    session.trust_env = False  # the proxy of the environment is this one
                    found = session.request(
                        self.command,
                        f"{address}{asked._replace(scheme='', netloc='').geturl()}",
                        data=body,
                        headers={k: v for k, v in self.headers.items() if k.lower() not in _OF_ONE_STEP},
                    )
                status, content = found.status_code, found.content
                headers = {k: v for k, v in found.headers.items() if k.lower() not in _OF_ONE_STEP}
            else:
                status, content = own[0], own[1].encode()
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _take  # noqa: N815 - the names that it looks for

        def log_message(self, *_: object) -> None:
            """Keep the terminal quiet."""

    with serving(Handler) as own:
        yield own
