"""Fit the head of a fusion network to few people: every member leaves some out, and they say when to stop.

Works on vectors that the frozen image branch and the clinical embedder gave before, so a fit takes seconds.

Shape letters: N people, M image features, T clinical embedding, K head members, O logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class People(NamedTuple):
    """What is known of the people to fit to.

    ``image_features`` is ``(N, M)``, ``clinical`` ``(N, T)`` or ``None``, ``log_creatinine_offset`` ``(N,)``,
    ``target`` ``(N, 5)`` as :class:`shared_nets.transforms.ckd_target.CKDTargetd` writes it.
    """

    image_features: Tensor
    clinical: Tensor | None
    log_creatinine_offset: Tensor
    target: Tensor

    def at(self, index: Tensor) -> People:
        """Pick some of the people by index ``(n,)``."""
        return People(*(None if part is None else part[index] for part in self))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class FittingRecipe:
    """How the head is fitted.

    Args:
        learning_rate: of AdamW.
        weight_decays: tried one after the other; people left out choose.
        max_steps: longest training, full batches.
        check_every: steps between looks at the people left out.
        num_folds: a member leaves out one of so many parts of the people.
        input_noise: standard deviation of noise on the head's inputs.
    """

    learning_rate: float = 3e-3
    weight_decays: Sequence[float] = (1.0,)
    max_steps: int = 300
    check_every: int = 10
    num_folds: int = 5
    input_noise: float = 0.1


class Fit(NamedTuple):
    """How a fit went: left-out logits ``(N, O)``, their loss, and what was chosen."""

    left_out_logits: Tensor
    left_out_loss: float
    weight_decay: float
    steps: int


def adapt_to_clinical(network: Any, clinical: Tensor) -> None:
    """Set the clinical adapter to the leading principal components of an embedding; no target is used.

    Args:
        network: a :class:`shared_nets.nets.ckd_fusion.CKDFusion`.
        clinical: embeddings of the people to fit to, ``(N, T)``.
    """
    mean, std = clinical.mean(dim=0), clinical.std(dim=0).clamp(min=1e-6)
    scaled = ((clinical - mean) / std).double()
    _, singular, directions = torch.linalg.svd(scaled, full_matrices=False)  # directions (min(N, T), T)
    width = network.clinical_adapter.out_features
    spread = singular / len(clinical) ** 0.5
    weight = torch.zeros(width, clinical.shape[1], dtype=torch.float64)
    kept = min(width, int((spread > 1e-3 * spread[0]).sum()))
    weight[:kept] = directions[:kept] / spread[0]  # keeps how much each component varies
    with torch.no_grad():
        network.clinical_mean.copy_(mean)
        network.clinical_std.copy_(std)
        network.clinical_adapter.weight.copy_(weight)
        network.clinical_adapter.bias.zero_()


def fit_head(
    network: Any,
    people: People,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    *,
    recipe: FittingRecipe,
    seed: int,
) -> Fit:
    """Fit the head in place; all other parts stay as they are.

    Args:
        network: a :class:`shared_nets.nets.ckd_fusion.CKDFusion`.
        people: those to fit to.
        loss_fn: mean loss of logits ``(n, O)`` against targets ``(n, 5)``.
        recipe: how to fit.
        seed: of starts, folds and dropout.

    Returns:
        The fit; a person's left-out logits are averaged over the members that did not train on that person.

    Raises:
        ValueError: the network has ordinal stage logits, whose thresholds are not part of the head.
    """
    if network.stage_logits is not None:
        raise ValueError("stage_head must be 'softmax' to fit the head alone, got 'ordinal'.")
    num_people, num_members = len(people.target), network.head.num_members
    with torch.no_grad():
        inputs = network.head_inputs(people.image_features, people.clinical)  # (N, F)
    trains_on = _membership(num_people, num_members, recipe.num_folds, seed)  # (K, N) bool
    targets = people.target.expand(num_members, *people.target.shape)  # (K, N, 5)
    best: Fit | None = None
    best_state: dict[str, Tensor] = {}
    for weight_decay in recipe.weight_decays:
        torch.manual_seed(seed)
        network.head.reset_parameters()
        network.head.train()
        optimizer = torch.optim.AdamW(
            network.head.parameters(), lr=recipe.learning_rate, weight_decay=weight_decay
        )
        for step in range(1, recipe.max_steps + 1):
            noisy = inputs + recipe.input_noise * torch.randn(num_members, *inputs.shape)
            logits = network.finish(network.head.member_logits(noisy), people.log_creatinine_offset)
            loss = num_members * loss_fn(logits[trains_on], targets[trains_on])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % recipe.check_every == 0:
                left_out = _left_out_logits(network, inputs, people, ~trains_on)
                score = float(loss_fn(left_out, people.target))
                if best is None or score < best.left_out_loss:
                    best = Fit(left_out, score, weight_decay, step)
                    best_state = {k: v.clone() for k, v in network.head.state_dict().items()}
                network.head.train()
    if best is None:
        raise ValueError(f"max_steps must be at least check_every, got {recipe.max_steps}.")
    network.head.load_state_dict(best_state)
    network.eval()
    return best


def _membership(num_people: int, num_members: int, num_folds: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for member in range(num_members):
        if member % num_folds == 0:
            fold = torch.arange(num_people)[torch.randperm(num_people, generator=generator)] % num_folds
        rows.append(fold != member % num_folds)
    return torch.stack(rows)


def _left_out_logits(network: Any, inputs: Tensor, people: People, left_out: Tensor) -> Tensor:
    network.head.eval()
    with torch.no_grad():
        members = network.head.member_logits(inputs.expand(len(left_out), *inputs.shape))  # (K, N, O)
        weights = left_out.to(members).unsqueeze(-1)  # (K, N, 1)
        mean = (members * weights).sum(dim=0) / weights.sum(dim=0).clamp(min=1.0)
        return network.finish(mean, people.log_creatinine_offset)
