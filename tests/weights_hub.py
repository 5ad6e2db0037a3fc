"""A hub of ImageNet weights on this machine: it speaks as much of the Hugging Face hub's protocol as a download needs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save
from serving import serving


def encoder_file(name: str) -> tuple[dict[str, torch.Tensor], bytes]:
    """Return an encoder's state dict, seeded, and the file that the hub would hold of it."""
    torch.manual_seed(0)
    state = smp.encoders.get_encoder(name, weights=None).state_dict()
    return state, save({key: tensor.contiguous() for key, tensor in state.items()})


@contextmanager
def serve_hub(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serve `{encoder name: its file}` at an address for HF_ENDPOINT, while the block runs."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            """Keep the terminal quiet."""

        def _answer(self, *, body: bool) -> None:
            asked = re.fullmatch(
                r"/smp-hub/(?P<encoder>[^/]+)\.imagenet/resolve/(?P<commit>\w+)/(?P<file>[^?]+)", self.path
            )
            content = None
            if asked and asked["encoder"] in files:
                content = {"config.json": b"{}", "model.safetensors": files[asked["encoder"]]}.get(asked["file"])
            if asked is None or content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", asked["commit"])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

    with serving(Hub) as address:
        yield address
