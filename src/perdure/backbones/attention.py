"""Attention kernels: fused, or two matrix products and a softmax, and the choice between them."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from perdure.atomic import atomic_write
from perdure.cache import home
from perdure.errors import OutputError, unknown_name
from perdure.types import BackboneSpec

Kernel = Literal["fused", "products"]
KERNELS: tuple[Kernel, ...] = ("fused", "products")

_SECONDS = 0.4
"""At most so long two kernels are timed against each other."""


def attend(
    queries: Float[Tensor, "b h q c"],
    keys: Float[Tensor, "b h k c"],
    values: Float[Tensor, "b h k c"],
    kernel: Kernel,
    marked: slice | None = None,
) -> tuple[Float[Tensor, "b h q c"], Float[Tensor, "b h q p"] | None]:
    """Softmax attention softmax(QKᵀ/√c) V; with ``marked`` also the weights on those keys.

    Fused, the weights come out of the same kernel: each marked key gets a value dimension of its own
    that is 1 there and 0 elsewhere, and queries and keys are padded with zeros to that width.

    Args:
        queries: per head.
        keys: per head, of tokens and of what was added.
        values: values of the same tokens.
        kernel: attention kernel to use.
        marked: keys whose weights are wanted.
    """
    if kernel == "products":
        # The order of timm's own unfused attention: a block without additions gives the same bits.
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
        weights = scores.softmax(dim=-1)
        return weights @ values, None if marked is None else weights[..., marked]
    if marked is None:
        return F.scaled_dot_product_attention(queries, keys, values), None
    width, count = keys.shape[-1], marked.stop - marked.start
    marks = keys.new_zeros(keys.shape[2], count)
    marks[marked] = torch.eye(count, dtype=keys.dtype, device=keys.device)
    values = torch.cat([values, marks.expand(*keys.shape[:2], -1, -1)], dim=-1)
    both = F.scaled_dot_product_attention(
        F.pad(queries, (0, count)), F.pad(keys, (0, count)), values, scale=width**-0.5
    )
    return both[..., :width], both[..., width:]


def choose_kernel(
    wanted: str, dtype: torch.dtype, device: torch.device, spec: BackboneSpec
) -> Kernel:
    """Return the kernel that ``wanted`` stands for.

    ``auto`` is ``fused`` in float32, on every device that is not a CPU, and on a CPU that emulates
    bf16. On a CPU with bf16 units the fused kernel may be the slower one by far (products run on
    matrix units), so there both are timed once per machine, type and size, in under half a second,
    and the answer is kept in the cache folder.

    Args:
        wanted: ``auto``, ``fused`` or ``products``.
        dtype: compute type.
        device: where it runs.
        spec: sizes of the backbone.

    Raises:
        UnknownNameError: another word.
    """
    for kernel in KERNELS:
        if wanted == kernel:
            return kernel
    if wanted != "auto":
        raise unknown_name("attention", wanted, ("auto", *KERNELS))
    if device.type != "cpu" or dtype == torch.float32 or not spec.heads or not bf16_units():
        return "fused"
    heads, tokens = spec.heads, spec.prefix_tokens + spec.patches
    width = spec.dim // heads
    key = f"{_machine()} {dtype} {heads}x{tokens}x{width} {torch.get_num_threads()} threads"
    file = home() / "attention.json"
    known = _read(file)
    if known.get(key) not in KERNELS:
        known[key] = faster_kernel(dtype, heads, tokens, width)
        _write(file, known)
    return "products" if known[key] == "products" else "fused"


def bf16_units() -> bool:
    """Whether this CPU computes in bf16 itself (AVX512-BF16 or AMX-BF16), as torch tells it."""
    # Not in every torch that is allowed; without it, none.
    able: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def emulation(dtype: torch.dtype, device: torch.device) -> float | None:
    """How many times as long as in fp32 a matrix product takes on a CPU that emulates ``dtype``.

    None where it does not, or where that is no loss.
    """
    if dtype != torch.bfloat16 or device.type != "cpu" or bf16_units():
        return None
    left, right = torch.ones(256, 768), torch.ones(768, 768)
    times = {}
    for kind in (torch.float32, dtype):
        a, b = left.to(kind), right.to(kind)
        a @ b
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            a @ b
            taken.append(time.perf_counter() - start)
        times[kind] = statistics.median(taken)
    ratio = times[dtype] / times[torch.float32]
    return ratio if ratio > 1 else None


def faster_kernel(dtype: torch.dtype, heads: int, tokens: int, width: int) -> Kernel:
    """Time a forward and backward of both kernels in turn, on the CPU, and return the faster."""
    shape = (4, heads, tokens, width)
    random = torch.Generator().manual_seed(0)
    queries, keys, values = (
        torch.randn(shape, generator=random).to(dtype).requires_grad_() for _ in range(3)
    )
    seconds: dict[Kernel, list[float]] = {"fused": [], "products": []}
    began = time.perf_counter()
    with torch.enable_grad():
        while not seconds["products"] or time.perf_counter() - began < _SECONDS / 2:
            for kernel in KERNELS:
                start = time.perf_counter()
                torch.autograd.grad(
                    attend(queries, keys, values, kernel)[0].sum(), (queries, keys, values)
                )
                seconds[kernel].append(time.perf_counter() - start)
    return min(KERNELS, key=lambda kernel: statistics.median(seconds[kernel]))


def _machine() -> str:
    """The processor and the torch that a timing holds for."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text("utf-8", errors="replace").splitlines()
        model = next((line for line in lines if line.startswith("model name")), model)
        flags = next((line for line in lines if line.startswith("flags")), "").split()
        model += "".join(f" {flag}" for flag in flags if "bf16" in flag)
    return f"{model.partition(':')[2].strip() or model} torch {torch.__version__}"


def _read(file: Path) -> dict[str, str]:
    """Kept choices; a file that cannot be read holds none: they are timed again."""
    try:
        known = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def _write(file: Path, known: dict[str, str]) -> None:
    """Keep choices; where the cache cannot be written the next process times again."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json.dumps(known, indent=1).encode())
    except (OSError, OutputError):
        return
