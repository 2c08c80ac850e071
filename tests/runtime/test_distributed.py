"""Training in several processes: joining, devices, and gradients that two processes share."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from shared_nets.runtime.distributed import (
    data_parallel,
    end_processes,
    local_device,
    num_processes,
    process_number,
    start_processes,
)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def one_process(monkeypatch):
    """The environment that ``torchrun --nproc_per_node 1`` makes, on CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**environment, "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, value)


def test_a_process_that_torchrun_did_not_start_is_told_so(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="must be started by torchrun --nproc_per_node N"):
        start_processes()
    assert not dist.is_initialized()


def test_processes_on_cpu_join_by_gloo_and_leave(one_process):
    start_processes()
    try:
        assert (dist.get_backend(), dist.get_world_size(), dist.get_rank()) == ("gloo", 1, 0)
    finally:
        end_processes()
    assert not dist.is_initialized()


def test_without_a_gpu_a_process_gets_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert local_device() == torch.device("cpu")


def test_every_process_gets_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device() == torch.device("cuda", 3)
    assert chosen == [torch.device("cuda", 3)]


def test_a_parameter_that_a_batch_does_not_use_is_allowed(one_process):
    class WithSpare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(1, 1), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.used(x)

    start_processes()
    try:
        network = data_parallel(WithSpare(), device=torch.device("cpu"))
        for _ in range(2):  # an unused parameter would stop the second step
            network(torch.ones(2, 1)).sum().backward()
        assert network.module.used.weight.grad.item() == 4.0  # 2 a step
    finally:
        end_processes()


TWO_PROCESSES = """
import sys
from pathlib import Path
import torch, torch.distributed as dist
from torch import nn
from shared_nets.runtime.distributed import (
    data_parallel,
    end_processes,
    local_device,
    num_processes,
    process_number,
    start_processes,
)

start_processes()
rank = dist.get_rank()
network = nn.Linear(1, 1, bias=False)
network.weight.data.fill_(float(rank))
network = data_parallel(network, device=local_device())
network(torch.tensor([[10.0 * (rank + 1)]])).sum().backward()
weight, gradient = network.module.weight.item(), network.module.weight.grad.item()
Path(sys.argv[1], f"{rank}.txt").write_text(f"{weight} {gradient}")
end_processes()
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes need two GPUs where there is one")
def test_two_processes_start_from_one_network_and_share_their_gradients(tmp_path):
    script = tmp_path / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    launcher = ["torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1"]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, f"--master_port={free_port()}", str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # both start from the weight of the first process, and the gradients 10 and 20 are averaged
    assert [(tmp_path / f"{rank}.txt").read_text(encoding="utf-8") for rank in (0, 1)] == [
        "0.0 15.0",
        "0.0 15.0",
    ]


def test_a_process_knows_its_number_also_where_it_is_the_only_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (process_number(), num_processes()) == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (process_number(), num_processes()) == (2, 4)
