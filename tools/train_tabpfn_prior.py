"""Train the small TabPFN checkpoint on synthetic tables, on one CPU thread, resumable at any step."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from shared_nets.data.tabpfn_prior import SyntheticTasks, sample_tasks
from shared_nets.nets.tabpfn_small import new_criterion, new_network, save_checkpoint

_TOKENS_PER_STEP = 8000
_CURRICULUM_STEPS = 800
_VALIDATION_SEED = 10**9
_VALIDATION_SHAPES = ((60, 40, 8), (120, 60, 16), (200, 60, 30))  # context rows, query rows, features
_VALIDATION_TASKS = 24
_EMA_DECAY = 0.998
_logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the training and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, required=True, help="checkpoint to write (.ckpt); JSON beside it"
    )
    parser.add_argument("--state", type=Path, required=True, help="training state, for resuming")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--embed-dim", type=int, default=96)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--num-heads", type=int, default=3)
    parser.add_argument("--num-buckets", type=int, default=128)
    parser.add_argument("--save-every-s", type=float, default=180.0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    _Training(options).run()
    return 0


class _Training:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        sizes = {k: getattr(options, k) for k in ("embed_dim", "depth", "num_heads", "num_buckets")}
        self.network = new_network(**sizes)
        self.average = new_network(**sizes)
        self.average.load_state_dict(self.network.state_dict())
        self.criterion: Any = new_criterion(target_borders(options.num_buckets))
        matrices = [p for n, p in self.network.named_parameters() if n.startswith("blocks.")]
        of_matrices = {id(p) for p in matrices}
        others = [p for p in self.network.parameters() if id(p) not in of_matrices]
        rate = options.learning_rate
        self.optimizers = [
            torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.98)),
        ]
        self.step = 0
        self.seconds = 0.0
        if options.state.exists():
            self._resume()
        self.validation = [
            sample_tasks(
                _VALIDATION_TASKS, context + query, width, generator=_generator(_VALIDATION_SEED + i)
            )
            for i, (context, query, width) in enumerate(_VALIDATION_SHAPES)
        ]
        self.baselines = {
            name: self._score(predict) for name, predict in (("ridge", _ridge), ("extra_trees", _extra_trees))
        }

    def run(self) -> None:
        module = sys.modules[type(self.network).__module__]
        # The package's attention is made for GPUs; this one is twice as fast on one CPU core.
        with mock.patch.object(module, "scaled_dot_product_attention", cpu_attention):
            self._loop()

    def _loop(self) -> None:
        started, saved, losses = time.monotonic(), time.monotonic(), []
        before = self.seconds
        while self.step < self.options.steps:
            losses.append(self._one_step())
            self.seconds = before + time.monotonic() - started
            if self.step % 50 == 0:
                _logger.info("Step %d: loss %.4f, %.0f s", self.step, np.mean(losses), self.seconds)
                losses = []
            if time.monotonic() - saved > self.options.save_every_s:
                self._save()
                saved = time.monotonic()
        self._save()

    def _one_step(self) -> float:
        generator = _generator(self.options.seed * 10**7 + self.step)
        num_tasks, context, query, width = task_shape(self.step, generator)
        tasks = sample_tasks(num_tasks, context + query, width, generator=generator)
        features, known, wanted = network_inputs(tasks, context)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.options.learning_rate * learning_rate_factor(self.step, self.options.steps)
            optimizer.zero_grad()
        self.network.train()
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.network(features, known)
        logits = logits.float()  # (M, B, buckets)
        likelihood = self.criterion(logits, wanted).clamp(max=10.0).mean()
        error = nn.functional.smooth_l1_loss(self.criterion.mean(logits), wanted)
        (likelihood + error).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        decay = min(_EMA_DECAY, self.step / (self.step + 20))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.network.parameters(), strict=True):
                slow.lerp_(fast, 1 - decay)
        return float(likelihood.detach())

    def _predict(self, tasks: SyntheticTasks, context: int) -> np.ndarray:
        self.average.eval()
        features, known, _ = network_inputs(tasks, context)
        with torch.inference_mode():
            return self.criterion.mean(self.average(features, known)).T.numpy()  # (B, M)

    def _score(self, predict: Any) -> float:
        scores = []
        for tasks, (context, _, _) in zip(self.validation, _VALIDATION_SHAPES, strict=True):
            _, _, wanted = network_inputs(tasks, context)
            predicted = predict(tasks, context)
            truth = wanted.T.numpy()
            error = ((predicted - truth) ** 2).sum(1)
            spread = ((truth - truth.mean(1, keepdims=True)) ** 2).sum(1)
            scores.append(np.clip(1 - error / spread, -1, 1))
        return round(float(np.concatenate(scores).mean()), 4)

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        for path in (self.options.state, self.options.output):
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.options.state.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.options.state)
        save_checkpoint(self.average, self.criterion, self.options.output)
        record: dict[str, Any] = {
            "command": f"python -m tools.train_tabpfn_prior --steps {self.options.steps}",
            "options": {k: v for k, v in vars(self.options).items() if not isinstance(v, Path)},
            "steps_done": self.step,
            "seconds_on_one_thread": round(self.seconds),
            "num_parameters": sum(p.numel() for p in self.network.parameters()),
            "trained_on": "synthetic tables of shared_nets.data.tabpfn_prior only",
            "validation": {
                "what": "mean R2, each task's clipped to [-1, 1], of query rows given context rows",
                "shapes_context_query_features": _VALIDATION_SHAPES,
                "tasks_per_shape": _VALIDATION_TASKS,
                "r2": {"tabpfn_small": self._score(self._predict), **self.baselines},
            },
            "sha256": hashlib.sha256(self.options.output.read_bytes()).hexdigest(),
        }
        self.options.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
        _logger.info("Step %d: validation R² %s", self.step, record["validation"]["r2"])

    def _resume(self) -> None:
        state = torch.load(self.options.state, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.seconds = state["step"], state["seconds"]


def task_shape(step: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Tasks, context rows, query rows and features of one step; small tables first."""
    progress = min(1.0, step / _CURRICULUM_STEPS)
    widest, longest = 5 + round(35 * progress**2), 60 + round(190 * progress**2)
    width = _log_uniform(3, widest, generator)
    context = _log_uniform(30, longest, generator)
    query = max(20, context // 2)
    tokens = (context + query) * (math.ceil(width / 2) + 1)
    return max(2, min(32, _TOKENS_PER_STEP // tokens)), context, query, width


def network_inputs(tasks: SyntheticTasks, context: int) -> tuple[Tensor, Tensor, Tensor]:
    """Order as the network reads it: features (R, B, F), known targets (N, B), wanted targets (M, B)."""
    known, wanted = tasks.targets[:, :context], tasks.targets[:, context:]
    mean, std = known.mean(1, keepdim=True), known.std(1, keepdim=True, correction=0).clamp(min=1e-3)
    known, wanted = ((t - mean) / std for t in (known, wanted))
    return tasks.features.transpose(0, 1), known.T, wanted.clamp(-8, 8).T


def learning_rate_factor(step: int, steps: int) -> float:
    """Warm up over 100 steps, hold, then fall to zero over the last 40 %."""
    return min(1.0, (step + 1) / 100, (steps - step) / (0.4 * steps))


def target_borders(num_buckets: int) -> Tensor:
    """Borders between which the prior's standardised targets are equally likely."""
    drawn = []
    for i in range(200):
        tasks = sample_tasks(8, 100, 6, generator=_generator(2 * 10**9 + i))
        drawn.append(network_inputs(tasks, 60)[2].flatten())
    values = torch.cat(drawn).double()
    borders = torch.quantile(values, torch.linspace(0.0005, 0.9995, num_buckets + 1, dtype=torch.float64))
    borders[0], borders[-1] = -8.0, 8.0
    return borders.float()


def cpu_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by two batched products in float32; shapes (B, S, heads, D), one key head may serve all."""
    B, S, heads, D = query.shape
    dtype = query.dtype
    with torch.autocast("cpu", enabled=False):
        query, key, value = query.float(), key.float(), value.float()
        if key.shape[2] == 1:
            weights = torch.bmm(query.reshape(B, S * heads, D), key[:, :, 0].transpose(1, 2)) * D**-0.5
            return torch.bmm(weights.softmax(-1), value[:, :, 0]).reshape(B, S, heads, D).to(dtype)
        query, key, value = (t.transpose(1, 2).reshape(B * heads, -1, D) for t in (query, key, value))
        weights = torch.bmm(query, key.transpose(1, 2)) * D**-0.5
        mixed = torch.bmm(weights.softmax(-1), value)
        return mixed.reshape(B, heads, S, D).transpose(1, 2).to(dtype)


def _ridge(tasks: SyntheticTasks, context: int) -> np.ndarray:
    return _classic(
        lambda: make_pipeline(
            SimpleImputer(keep_empty_features=True), StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))
        ),
        tasks,
        context,
    )


def _extra_trees(tasks: SyntheticTasks, context: int) -> np.ndarray:
    return _classic(
        lambda: make_pipeline(
            SimpleImputer(keep_empty_features=True),
            ExtraTreesRegressor(200, min_samples_leaf=3, random_state=0),
        ),
        tasks,
        context,
    )


def _classic(make: Any, tasks: SyntheticTasks, context: int) -> np.ndarray:
    features, known, _ = network_inputs(tasks, context)
    x, y = features.transpose(0, 1).numpy(), known.T.numpy()
    return np.stack([make().fit(a[:context], b).predict(a[context:]) for a, b in zip(x, y, strict=True)])


def _log_uniform(low: int, high: int, generator: torch.Generator) -> int:
    position = float(torch.rand((), generator=generator))
    return round(math.exp(math.log(low) + position * (math.log(high) - math.log(low))))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    raise SystemExit(main())
