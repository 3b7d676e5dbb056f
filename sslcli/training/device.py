"""The device, precision and threads of a run."""

from __future__ import annotations

import os

import torch

from sslcli.distributed.start import Start, available_cpus
from sslcli.errors import UserError
from sslcli.types import Compute


def choose(name: str, precision: str, start: Start | None = None) -> Compute:
    """Return the device called ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``, and its dtype for ``precision``.

    Args:
        name: the device; ``cuda`` is another GPU for each process of a host.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        start: the place of this process among those of its run.

    Raises:
        UserError: this machine does not have the device, or the device does not support the precision.
    """
    device = _device(name, start or Start())
    chosen = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if chosen is None:
        chosen = _best_precision(device)
    if chosen == torch.float16 and device.type == "cpu":
        raise UserError("train.precision: fp16 needs a GPU. On a CPU use auto, bf16 or fp32.")
    return Compute(device, chosen)


def _device(name: str, start: Start) -> torch.device:
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    if name == "cuda" and start.size > 1:
        sees_its_own = start.by == "srun" and torch.cuda.device_count() == 1  # with --gpus-per-task
        name = f"cuda:{0 if sees_its_own else start.local_rank}"
    if name.startswith("cuda") and not has_cuda:
        raise UserError("device: there is no CUDA device on this machine. Use device=auto or device=cpu.")
    if name == "mps" and not has_mps:
        raise UserError("device: there is no Apple GPU on this machine. Use device=auto or device=cpu.")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError
    except RuntimeError:
        raise UserError(f"device.name: '{name}' is not a device. Known: auto, cpu, cuda, cuda:0, mps.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device.name: this machine has {torch.cuda.device_count()} CUDA devices, no '{name}'.")
    return device


def _best_precision(device: torch.device) -> torch.dtype:
    """Return bf16 where the hardware computes it fast, fp16 on older CUDA GPUs, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if device.type == "cpu":
        features: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # newer torch only
        fast = features.get("avx512_bf16") or features.get("amx_bf16")
        return torch.bfloat16 if fast else torch.float32
    return torch.float32


def set_threads(count: int | None) -> None:
    """Use ``count`` CPU threads, by default as many as this process may use; the number changes the order of sums."""
    limit = os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(count or (int(limit) if limit and limit.isdigit() and int(limit) else available_cpus()))


def set_determinism(deterministic: bool) -> None:
    """Use only deterministic kernels if ``deterministic``; else let cuDNN choose the fastest."""
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if deterministic != torch.are_deterministic_algorithms_enabled():  # setting it imports the compiler, for seconds
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
