"""What scoring two models at the gate costs: images a second, peak memory, and the overhead over their bare passes.

Each number of images is scored in a process of its own, so that its peak memory is its own. Bare is the sum of what
cannot be saved: decoding each image and mask once, and each network's forward passes on prepared batches.

    python benchmarks/scoring.py [--images 100 2000] [--height 375] [--width 500] [--input 128] [--metric iou]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
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
    """Seconds of everything, each alone, and the peak memory of this process."""
    samples = gate_set(folder, images)
    models = {role: ServedModel(folder / role) for role in NETWORKS}
    score_models(models, samples[:BATCH], VALUES, metric=metric)  # TorchScript compiles in its first calls
    score_models(models, samples[:BATCH], VALUES, metric=metric)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"gate": seconds(lambda: score_models(models, samples, VALUES, metric=metric))}
    found |= {"before": before, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    few = samples[:FILES]
    times = images / len(few)
    found["decoding"] = times * seconds(lambda: [(read_image(s.image), read_mask(s.mask, VALUES)) for s in few])
    for role, model in models.items():
        batch = model.card.prepare([read_image(sample.image) for sample in few[:BATCH]])
        found[role] = images / BATCH * seconds(lambda m=model, b=batch: forward(m, b), repeats=5)
    return found


@torch.inference_mode()
def forward(model: ServedModel, batch: torch.Tensor) -> None:
    """The bare pass."""
    model._network(batch)


def seconds(work: Callable[[], object], *, repeats: int = 1) -> float:
    """The median of several runs, in seconds of this process's CPU: other work on the machine does not count."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return sorted(taken)[len(taken) // 2]


def main() -> None:
    """Print a row for each number of images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 2_000])
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--input", type=int, default=128)
    parser.add_argument("--metric", default="iou")
    options = parser.parse_args()
    print("| images | images / s | decoding | champion | challenger | gate | gate / bare | memory before | peak |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), options.height, options.width, options.input)
        for images in options.images:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.apply(measure, (Path(name), images, options.metric))
            bare = found["decoding"] + found["champion"] + found["challenger"]
            parts = " | ".join(f"{found[key]:.2f} s" for key in ("decoding", "champion", "challenger", "gate"))
            memory = f"{found['before']:.0f} MiB | {found['peak']:.0f} MiB"
            row = f"{images} | {images / found['gate']:.1f} | {parts} | {found['gate'] / bare:.2f} | {memory}"
            print(f"| {row} |", flush=True)


if __name__ == "__main__":
    main()
