"""Training in several processes, as ``torchrun`` starts them: NCCL on GPUs, gloo on CPUs."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def start_processes() -> None:
    """Join the process group that ``torchrun`` describes.

    Raises:
        RuntimeError: the process was not started by ``torchrun``.
    """
    if "LOCAL_RANK" not in os.environ:
        raise RuntimeError(
            "multi_gpu_train.json must be started by torchrun --nproc_per_node N -m monai.bundle run."
        )
    dist.init_process_group(backend="nccl" if torch.cuda.is_available() else "gloo")


def process_number() -> int:
    """Give the number of this process, from 0; 0 where ``torchrun`` did not start it."""
    return int(os.environ.get("RANK", "0"))


def num_processes() -> int:
    """Give how many processes there are; 1 where ``torchrun`` did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def end_processes() -> None:
    """Leave the process group."""
    dist.destroy_process_group()


def local_device() -> torch.device:
    """Give this process its own GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def data_parallel(network: nn.Module, *, device: torch.device) -> DistributedDataParallel:
    """Share a network's gradients between the processes.

    Args:
        network: moved to ``device``; parameters that a batch does not use (a learned vector for what is
            missing) are allowed.
        device: of this process.

    Returns:
        The wrapped network.
    """
    return DistributedDataParallel(
        network.to(device),
        device_ids=None if device.type == "cpu" else [device],
        find_unused_parameters=True,
    )
