"""Run the studies of a worklist in the processes of Ray: on this machine, or on a cluster that is there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from shared_nets.refusals import InputRefused
from shared_nets.runtime.run_folder import RunFolder, Shard, lock_file
from shared_nets.runtime.study_ending import clear_study, failed_ending
from shared_nets.runtime.worklist import Attempt, StudyRuntime, attempt_study

_OBJECT_STORE_BYTES = 128 * 2**20  # studies travel as paths, and results as files
_WORKER_DIED = "WorkerDied"


class RayWorkers:
    """Processes that each load the bundle once and run one study at a time.

    A process that dies takes its study with it: the study has failed, and another process takes its place.

    Args:
        make_runtime: loads the bundle; it is pickled.
        folder: the run; every process must reach it, and the studies, under the same path.
        shard: the part of the studies; every process holds a lock for it as long as it lives.
        num_threads: of PyTorch in each process, and the CPUs that Ray keeps for it.
        num_workers: how many processes; ``None``: as many as there are CPUs for.
        address: of a cluster (``auto``, or ``HOST:PORT``); ``None`` starts Ray on this machine. Ray listens
            on the network either way, and lets in who has its token (``RAY_AUTH_MODE``, on by default).
        gpus_per_worker: GPUs that Ray keeps for each process, parts too; without them a process sees none.

    Raises:
        ModuleNotFoundError: ray is not installed.
        InputRefused: the bundle cannot be loaded.
    """

    def __init__(
        self,
        make_runtime: Callable[[], StudyRuntime],
        folder: RunFolder,
        shard: Shard,
        num_threads: int,
        *,
        num_workers: int | None = None,
        address: str | None = None,
        gpus_per_worker: float = 0.0,
    ) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "ray must be installed to run a worklist with it: pip install 'shared_nets[ray]'."
            ) from error
        self._ray: Any = ray
        if address is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            self.size = num_workers or max(1, cores // num_threads)
            ray.init(
                num_cpus=self.size * num_threads,
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
            )
        else:
            ray.init(address=address)
            self.size = num_workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // num_threads)
        self._folder, self._shard = folder, shard
        self._make = lambda index: (
            ray.remote(_Worker)
            .options(num_cpus=num_threads, num_gpus=gpus_per_worker)
            .remote(make_runtime, folder, shard, index, num_threads)
        )
        self._workers: dict[int, Any] = {index: self._make(index) for index in range(self.size)}
        self._running: dict[Any, tuple[int, str, float]] = {}
        try:
            self._prepare(*self._workers)
        except BaseException:
            self.close()
            raise

    def submit(self, study: Mapping[str, Any]) -> None:
        """Give a study to a free process."""
        busy = {index for index, _, _ in self._running.values()}
        index = min(set(self._workers) - busy)
        reference = self._workers[index].attempt.remote(dict(study))
        self._running[reference] = index, str(study["study_id"]), time.perf_counter()

    def next_attempt(self) -> Attempt:
        """Wait for the next study to end, by itself or with its process."""
        (reference, *_), _ = self._ray.wait(list(self._running), num_returns=1)
        index, study_id, start = self._running.pop(reference)
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayActorError:
            self._workers[index] = self._make(index)
            self._prepare(index)
            clear_study(self._folder.output_dir, study_id)
            return Attempt(
                ending=failed_ending(study_id, _WORKER_DIED),
                exception=_WORKER_DIED,
                seconds=time.perf_counter() - start,
            )

    def close(self) -> None:
        """End the processes, and Ray where it was started here."""
        for worker in self._workers.values():
            self._ray.kill(worker)
        self._ray.shutdown()

    def _prepare(self, *indices: int) -> None:
        for refused in self._ray.get([self._workers[index].prepare.remote() for index in indices]):
            if refused is not None:
                raise InputRefused(**refused)


class _Worker:
    """One process."""

    def __init__(
        self,
        make_runtime: Callable[[], StudyRuntime],
        folder: RunFolder,
        shard: Shard,
        index: int,
        num_threads: int,
    ) -> None:
        self._make_runtime, self._output_dir, self._num_threads = make_runtime, folder.output_dir, num_threads
        self._lock = lock_file(folder.lock_path(shard, worker=index))

    def prepare(self) -> dict[str, str] | None:
        """Load the bundle; a refusal is returned, since Ray turns what is raised into something else."""
        self._lock.acquire(timeout=30)
        torch.set_num_threads(self._num_threads)
        try:
            self._runtime = self._make_runtime()
        except InputRefused as refusal:
            return refusal.as_dict()
        return None

    def attempt(self, study: dict[str, Any]) -> Attempt:
        """Run a study."""
        return attempt_study(self._runtime, study, self._output_dir)
