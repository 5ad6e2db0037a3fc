"""What scoring two models at the gate costs: images a second, peak memory, and the overhead over their bare passes.

Each number of images is scored in a process of its own, so that its peak memory is its own. Bare is the sum of what
cannot be saved: decoding each image and mask once, and each network's forward passes on prepared batches; all are
measured in turns, in CPU time an image.

    python benchmarks/scoring.py [--images 100 2000] [--height 375] [--width 500] [--input 128] [--metric iou]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ratchet.data.reading import read_image, read_mask
from ratchet.data.samples import Sample
from ratchet.evaluation.scoring import BATCH, score_models
from ratchet.evaluation.served import ServedModel
from ratchet.training.network import create_network

FILES = 100  # different images; a larger gate set repeats them
NETWORKS = {"champion": ("unet", "resnet18"), "challenger": ("fpn", "resnet34")}
ROUNDS = 9  # of which the first two compile
VALUES = {0: 0, 1: 1, 2: 2}


def make(folder: Path, height: int, width: int, side: int) -> None:
    """Write photographs of smooth noise with two blobs each, and two untrained networks."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    for number in range(FILES):
        mask = np.zeros((height, width), dtype=np.uint8)
        for index in (1, 2):
            y, x, radius = random.uniform(0, height), random.uniform(0, width), random.uniform(0.1, 0.35) * height
            mask[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = index
        noise = Image.fromarray(random.integers(0, 255, (height // 12, width // 12, 3), dtype=np.uint8))
        image = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC)) // 2 + 50 * mask[:, :, None]
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
        Image.fromarray(mask).save(folder / f"{number}.png")
    card = {"input_height": side, "input_width": side, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    for role, (arch, encoder) in NETWORKS.items():
        torch.manual_seed(0)
        network = create_network(arch=arch, encoder_name=encoder, encoder_weights=None, num_classes=3).eval()
        (folder / role).mkdir()
        with torch.no_grad():
            traced = torch.jit.trace(network, torch.zeros(2, 3, side, side), check_trace=False)
            torch.jit.save(torch.jit.freeze(traced), str(folder / role / "model.pt"))
        (folder / role / "model.json").write_text(json.dumps(card | {"classes": ["background", "disc", "blob"]}))


def gate_set(folder: Path, images: int) -> list[Sample]:
    """So many samples, over and over the same files."""
    paths = [(folder / f"{n % FILES}.jpg", folder / f"{n % FILES}.png") for n in range(images)]
    return [Sample(f"{n}", image, mask, "gate") for n, (image, mask) in enumerate(paths)]


def measure(folder: Path, images: int, metric: str) -> dict[str, float]:
    """Seconds for the first images of the gate and of its bare parts, in turns; then peak memory and pace over all."""
    samples = gate_set(folder, images)
    models = {role: ServedModel(folder / role) for role in NETWORKS}
    few = samples[: 2 * BATCH]
    batches = {role: model.card.prepare([read_image(s.image) for s in few[:BATCH]]) for role, model in models.items()}
    works: dict[str, Callable[[], object]] = {
        "gate": lambda: score_models(models, few, VALUES, metric=metric),
        "decoding": lambda: [(read_image(s.image), read_mask(s.mask, VALUES)) for s in few],
    }
    for role, model in models.items():
        works[role] = lambda model=model, batch=batches[role]: [forward(model, batch) for _ in range(2)]
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            taken[name].append(seconds(work))
    found = {name: statistics.median(some[2:]) / len(few) for name, some in taken.items()}  # the first compile
    before, start = peak(), time.perf_counter()
    score_models(models, samples, VALUES, metric=metric)
    return found | {"pace": images / (time.perf_counter() - start), "before": before, "peak": peak()}


def peak() -> float:
    """The largest size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def forward(model: ServedModel, batch: torch.Tensor) -> None:
    """The bare pass."""
    model._network(batch)


def seconds(work: Callable[[], object]) -> float:
    """Of this process's CPU: other work on the machine does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Print a row for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 2_000])
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--input", type=int, default=128)
    parser.add_argument("--metric", default="iou")
    options = parser.parse_args()
    print("| images | decoding | champion | challenger | gate | gate / bare | images / s | memory before | peak |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), options.height, options.width, options.input)
        for images in options.images:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (Path(name), images, options.metric))
            bare = found["decoding"] + found["champion"] + found["challenger"]
            parts = " | ".join(f"{1000 * found[key]:.1f} ms" for key in ("decoding", "champion", "challenger", "gate"))
            memory = f"{found['before']:.0f} MiB | {found['peak']:.0f} MiB"
            print(f"| {images} | {parts} | {found['gate'] / bare:.2f} | {found['pace']:.1f} | {memory} |", flush=True)


if __name__ == "__main__":
    main()
