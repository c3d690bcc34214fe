"""A served model under load: many clients for a minute, beside `perdure predict` on the same files.

    python benchmarks/speed/serve.py MODEL [--clients 64] [--seconds 60]

Drawn JPEG files of 500 x 400 pixels. `perdure serve` runs as a process of its own; clients are threads
of another, each with one connection, that send a file and wait for the answer, again and again.
`perdure predict` (from files to written rows, models loaded before) is timed before and after, each
for a third of the time, in batches of the server's size and of the model's; the share is of the faster.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perdure.bench.data import drawn_photographs
from perdure.cli.commands.predict import write_predictions
from perdure.learner.saved.model import read_model
from perdure.learner.state import LearnerState
from perdure.serve.batches import MOST
from perdure.streams.images.find_images import Listed


def clients(port: int, files: Sequence[Path], count: int, seconds: float, out: Any) -> None:
    """Ask from so many threads; puts the seconds of every answer, and the faults."""
    bodies = [_form(path.read_bytes()) for path in files]
    took: list[float] = []
    faults: list[str] = []
    ends = time.monotonic() + seconds

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        while time.monotonic() < ends:
            began = time.monotonic()
            try:
                connection.request("POST", "/api/predict", bodies[number % len(bodies)], headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != http.client.OK or b'"class"' not in content:
                    faults.append(f"{answer.status}: {content[:200]!r}")
            except (OSError, http.client.HTTPException) as error:
                faults.append(repr(error))
                connection.close()
            took.append(time.monotonic() - began)
            number += count

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    out.put((took, faults, time.monotonic() - began))


def _form(content: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return head + content + b"\r\n--x--\r\n"


def predicted_per_second(
    state: LearnerState, files: Sequence[Path], seconds: float, batch_size: int | None
) -> float:
    """Images per second of `perdure predict`."""
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        listed = map(Listed, files)
        done += write_predictions(state, listed, io.StringIO(), "json", batch_size=batch_size)[0]
    return done / (time.monotonic() - began)


def served(model: str, files: Sequence[Path], count: int, seconds: float) -> dict[str, Any]:
    """Figures of a server under load."""
    words = [sys.executable, "-m", "perdure.cli", "serve", model, "--port", "0", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = ""
        while not lines.endswith("}\n"):
            lines += process.stdout.readline()
        port = int(json.loads(lines)["url"].rpartition(":")[2].strip("/"))
        context = multiprocessing.get_context("spawn")
        for length in (5.0, seconds):  # the first is a warm-up
            out = context.Queue()
            asking = context.Process(target=clients, args=(port, files, count, length, out))
            asking.start()
            took, faults, whole = out.get()
            asking.join()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/metrics")
        metrics = connection.getresponse().read().decode()
        figures = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line[:1] != "#")
    finally:
        process.terminate()
        process.wait()
    batches = float(figures["perdure_batch_images_count"])
    return {
        "requests": len(took),
        "faults": faults[:5],
        "faulty": len(faults),
        "requests_per_second": len(took) / whole,
        "p50_seconds": statistics.median(took),
        "p95_seconds": statistics.quantiles(took, n=20)[-1],
        "images_per_batch": float(figures["perdure_batch_images_sum"]) / batches,
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    state = read_model(Path(args.model))
    with tempfile.TemporaryDirectory() as place:
        drawn_photographs(Path(place), 64)
        files = sorted(Path(place).iterdir())
        sizes, part = (MOST, None), args.seconds / 6
        before = [predicted_per_second(state, files, part, size) for size in sizes]
        under_load = served(args.model, files, args.clients, args.seconds)
        after = [predicted_per_second(state, files, part, size) for size in sizes]
    predicted = max(statistics.mean(pair) for pair in zip(before, after, strict=True))
    figures = {
        **under_load,
        "predict_per_second": {"before": before, "after": after, "batch_sizes": [MOST, "model's"]},
        "share_of_predict": under_load["requests_per_second"] / predicted,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
