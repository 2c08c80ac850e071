"""CKDFusion: kidney slices and clinical values to creatinine and KDIGO stage, and its sizes.

Shape letters: B batch, S slices, C channels, H height, W width, E trunk embedding, P slice features,
M image features (with G of the geometry), T clinical embedding, K stages, O logits, Q quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shared_nets.blocks.attention_pooling import ConcatPooling, GatedAttentionPooling, MaskedMeanPooling
from shared_nets.blocks.fusion_head import FusionHead, OrdinalLogits
from shared_nets.blocks.lora_adapters import add_lora
from shared_nets.blocks.slice_geometry import SliceGeometry
from shared_nets.nets.vision_transformer import vit_base_patch16_amos, vit_tiny_patch16

MODES = ("regression", "classification", "multitask")
POOLINGS = ("mean", "attention", "concat")
BACKBONE_TRAININGS = ("frozen", "lora", "full")
STAGE_HEADS = ("softmax", "ordinal")
NUM_STAGES = 6
NUM_QUANTILES = 101
_WAVELENGTHS_MM = (40.0, 80.0, 160.0, 320.0, 640.0, 1280.0)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class CreatinineInterval(NamedTuple):
    """Log creatinine (ln mg/dL) and the ends of its predictive interval, each ``(B,)``."""

    log_creatinine: Tensor
    log_low: Tensor
    log_high: Tensor


class CKDFusion(nn.Module):
    """Predict creatinine, and the KDIGO stage, from kidney slices and clinical values.

    Every slice goes through one trunk; the slice vectors are pooled to one vector a person, brought to a few
    bounded image features, joined with the adapted clinical embedding, and mapped to logits by an ensemble of
    small heads. A person without a valid slice, and a person without clinical values, are each represented by
    a learned vector, so that either branch can be left out.

    Args:
        backbone: network from ``(N, C, H, W)`` to ``(N, E)``.
        embed_dim: E.
        in_channels: C; a grey slice is repeated.
        num_slices: S, fixed for ``concat`` pooling only.
        slice_features: P.
        image_hidden_features: width of the hidden layer between pooling and image features.
        image_features: M.
        clinical_dim: T.
        clinical_features: width of the adapted clinical embedding.
        pooling: ``mean`` or ``attention`` over the valid slices, or ``concat``.
        geometry: measures ``(B, G)`` of mask slices that join the image features, as
            :class:`shared_nets.blocks.slice_geometry.SliceGeometry`; ``None`` for other pictures.
        use_slice_positions: whether a slice's place along the body enters its vector.
        mode: ``regression`` gives log creatinine, ``classification`` stage logits, ``multitask`` both.
        stage_head: ``softmax`` or ``ordinal`` (proportional odds) stage logits.
        backbone_training: ``frozen`` (never trains, stays in evaluation), ``lora`` (adapters only), ``full``.
        image_branch_is_frozen: whether projection, pooling and image features are kept as loaded as well.
        hidden_features: hidden width of a head.
        num_members: number of heads.
        dropout_rate: dropout inside the heads.
        channel_mean: subtracted from each channel, ``(C,)``; ``None`` leaves the slices as they are.
        channel_std: divides each channel, ``(C,)``.
        slice_chunk: slices that go through the trunk at once.
        lora_rank: rank of the adapters.

    Raises:
        ValueError: a name is unknown or the numbers do not fit.
    """

    channel_mean: Tensor
    channel_std: Tensor
    feature_weights: Tensor
    clinical_mean: Tensor
    clinical_std: Tensor
    log_residual_quantiles: Tensor

    def __init__(
        self,
        *,
        backbone: nn.Module,
        embed_dim: int,
        in_channels: int = 1,
        num_slices: int = 16,
        slice_features: int = 192,
        image_hidden_features: int = 128,
        image_features: int = 32,
        clinical_dim: int = 192,
        clinical_features: int = 32,
        pooling: str = "mean",
        geometry: SliceGeometry | None = None,
        use_slice_positions: bool = True,
        mode: str = "regression",
        stage_head: str = "softmax",
        backbone_training: str = "frozen",
        image_branch_is_frozen: bool = False,
        hidden_features: int = 32,
        num_members: int = 8,
        dropout_rate: float = 0.1,
        channel_mean: Sequence[float] | None = None,
        channel_std: Sequence[float] | None = None,
        slice_chunk: int = 64,
        lora_rank: int = 8,
    ) -> None:
        super().__init__()
        _check_choice("pooling", pooling, POOLINGS)
        _check_choice("mode", mode, MODES)
        _check_choice("stage_head", stage_head, STAGE_HEADS)
        _check_choice("backbone_training", backbone_training, BACKBONE_TRAININGS)
        if slice_chunk < 1:
            raise ValueError(f"slice_chunk must be 1 or more, got {slice_chunk}.")
        self.mode = mode
        self.backbone_training = backbone_training
        self.image_branch_is_frozen = image_branch_is_frozen
        self.embed_dim = embed_dim
        self.in_channels = in_channels
        self.slice_chunk = slice_chunk
        self.register_buffer("channel_mean", _channels(channel_mean, in_channels, 0.0), persistent=False)
        self.register_buffer("channel_std", _channels(channel_std, in_channels, 1.0), persistent=False)

        self.backbone = backbone
        self.slice_projection = nn.Linear(embed_dim, slice_features)
        self.position_projection = (
            nn.Linear(2 * len(_WAVELENGTHS_MM), slice_features, bias=False) if use_slice_positions else None
        )
        self.pool: nn.Module
        if pooling == "concat":
            self.pool = ConcatPooling(num_slices=num_slices)
        else:
            self.pool = (
                GatedAttentionPooling(features=slice_features)
                if pooling == "attention"
                else MaskedMeanPooling()
            )
        pooled_features = slice_features * (num_slices if pooling == "concat" else 1)
        self.image_adapter = nn.Sequential(
            nn.Linear(pooled_features, image_hidden_features),
            nn.GELU(),
            nn.Linear(image_hidden_features, image_features),
            nn.Tanh(),
        )
        self.trunk_features = image_features
        self.geometry = geometry
        image_features += geometry.out_features if geometry is not None else 0
        self.null_image = nn.Parameter(torch.zeros(image_features))
        #: Weight of each image feature in the head; where all of the trunk's are 0, the trunk does not run.
        self.register_buffer("feature_weights", torch.ones(image_features))

        self.register_buffer("clinical_mean", torch.zeros(clinical_dim))
        self.register_buffer("clinical_std", torch.ones(clinical_dim))
        self.clinical_adapter = nn.Linear(clinical_dim, clinical_features)
        self.null_clinical = nn.Parameter(torch.zeros(clinical_features))

        self.stage_logits = OrdinalLogits(num_stages=NUM_STAGES) if stage_head == "ordinal" else None
        stage_outputs = 1 if stage_head == "ordinal" else NUM_STAGES
        outputs = {"regression": 1, "classification": stage_outputs, "multitask": 1 + stage_outputs}[mode]
        if mode == "regression":
            self.stage_logits = None
        self.head = FusionHead(
            in_features=image_features + clinical_features,
            out_features=outputs,
            hidden_features=hidden_features,
            num_members=num_members,
            dropout_rate=dropout_rate,
        )
        if mode != "classification":
            #: Quantiles, ascending, of observed minus predicted log creatinine of people not trained on.
            self.register_buffer("log_residual_quantiles", torch.zeros(NUM_QUANTILES))

        if backbone_training == "frozen":
            self.backbone.requires_grad_(False)
        elif backbone_training == "lora":
            add_lora(self.backbone, rank=lora_rank, alpha=2 * lora_rank)
        if image_branch_is_frozen:
            for module in self._image_branch():
                module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> CKDFusion:
        """Set training mode; frozen parts stay in evaluation."""
        super().train(mode)
        if self.backbone_training == "frozen":
            self.backbone.eval()
        if self.image_branch_is_frozen:
            for module in self._image_branch():
                module.eval()
        return self

    def forward(
        self,
        image: Tensor,
        clinical: Tensor | None = None,
        slice_valid: Tensor | None = None,
        slice_positions_mm: Tensor | None = None,
        log_creatinine_offset: Tensor | None = None,
    ) -> Tensor:
        """Give the logits of each person.

        Args:
            image: grey kidney slices, ``(B, S, H, W)``.
            clinical: clinical embeddings, ``(B, T)``; ``None`` when there are none.
            slice_valid: true where a slice holds an image, ``(B, S)``; ``None`` when all do.
            slice_positions_mm: place of each slice along the body, ``(B, S)``, from any origin; ``None`` when
                not known.
            log_creatinine_offset: log creatinine to start from, ``(B,)``, ln mg/dL; ``None`` is 0.

        Returns:
            ``(B, 1)`` log creatinine (ln mg/dL, unbounded), ``(B, 6)`` stage logits from G1 to G5, or
            ``(B, 7)`` both, by mode.

        Raises:
            ValueError: a shape does not fit.
        """
        features = self.encode_image(image, slice_valid, slice_positions_mm)  # (B, M)
        return self.fuse(features, clinical, log_creatinine_offset)

    def encode_slices(self, image: Tensor, slice_valid: Tensor | None = None) -> Tensor:
        """Run the trunk over the valid slices of ``(B, S, H, W)``; ``(B, S, E)``, zero where invalid."""
        if image.ndim != 4:
            raise ValueError(f"image must have shape (B, S, H, W), got {tuple(image.shape)}.")
        is_valid = _validity(slice_valid, image)  # (B, S)
        flat = image[is_valid].unsqueeze(1)  # (N, 1, H, W)
        trains = self.backbone_training != "frozen" and torch.is_grad_enabled()
        vectors = []
        with torch.set_grad_enabled(trains):
            for chunk in flat.split(self.slice_chunk):
                channels = chunk.expand(-1, self.in_channels, -1, -1)
                vectors.append(self.backbone((channels - self.channel_mean) / self.channel_std))  # (n, E)
        out = image.new_zeros(*is_valid.shape, self.embed_dim)
        return out.masked_scatter(is_valid.unsqueeze(-1), torch.cat(vectors).to(out)) if vectors else out

    def encode_image(
        self, image: Tensor, slice_valid: Tensor | None = None, slice_positions_mm: Tensor | None = None
    ) -> Tensor:
        """Describe the kidneys of each person by image features ``(B, M + G)`` in [−1, 1]."""
        is_valid = _validity(slice_valid, image)
        if self.feature_weights[: self.trunk_features].any():
            features = self.pool_slices(self.encode_slices(image, is_valid), is_valid, slice_positions_mm)
        else:
            features = image.new_zeros(len(image), self.trunk_features)
        if self.geometry is not None:
            measured = self.geometry(image, is_valid, slice_positions_mm)  # (B, G)
            features = torch.cat([features, measured], dim=1)
        return torch.where(is_valid.any(dim=1, keepdim=True), features, self.null_image.to(features))

    def pool_slices(
        self, vectors: Tensor, is_valid: Tensor, slice_positions_mm: Tensor | None = None
    ) -> Tensor:
        """Bring trunk vectors of slices ``(B, S, E)`` to the trunk's image features ``(B, M)``."""
        projected = self.slice_projection(vectors)  # (B, S, P)
        if self.position_projection is not None and slice_positions_mm is not None:
            waves = position_waves(slice_positions_mm.to(projected), is_valid)  # (B, S, 12)
            projected = projected + self.position_projection(waves)
        return self.image_adapter(self.pool(torch.relu(projected), is_valid))  # (B, M)

    def fuse(
        self, image_features: Tensor, clinical: Tensor | None, log_creatinine_offset: Tensor | None = None
    ) -> Tensor:
        """Join image features ``(B, M + G)`` and clinical embeddings ``(B, T)``; give logits ``(B, O)``."""
        return self.finish(self.head(self.head_inputs(image_features, clinical)), log_creatinine_offset)

    def head_inputs(self, image_features: Tensor, clinical: Tensor | None) -> Tensor:
        """Lay image features ``(B, M)`` and the adapted clinical embedding side by side."""
        batch_size = len(image_features)
        image_features = image_features * self.feature_weights
        if clinical is None:
            return torch.cat([image_features, self.null_clinical.expand(batch_size, -1)], dim=1)
        if clinical.shape != (batch_size, len(self.clinical_mean)):
            wanted = (batch_size, len(self.clinical_mean))
            raise ValueError(f"clinical must have shape {wanted}, got {tuple(clinical.shape)}.")
        adapted = self.clinical_adapter((clinical - self.clinical_mean) / self.clinical_std)
        return torch.cat([image_features, adapted], dim=1)

    def finish(self, head_logits: Tensor, log_creatinine_offset: Tensor | None) -> Tensor:
        """Turn what the head says, ``(…, B, O)``, into logits: order the stages, add the offset ``(B,)``."""
        logits = head_logits
        if self.stage_logits is not None:
            logits = torch.cat([logits[..., :-1], self.stage_logits(logits[..., -1:])], dim=-1)
        if log_creatinine_offset is None or self.mode == "classification":
            return logits
        offset = log_creatinine_offset.to(logits).reshape(-1, 1)
        return torch.cat([logits[..., :1] + offset, logits[..., 1:]], dim=-1)

    def set_residual_quantiles(self, quantiles: Tensor) -> None:
        """Keep the 101 quantiles, 0 % to 100 %, of observed minus predicted log creatinine."""
        if quantiles.shape != (NUM_QUANTILES,) or bool((quantiles.diff() < 0).any()):
            raise ValueError(f"quantiles must be {NUM_QUANTILES} ascending numbers, got {quantiles}.")
        self.log_residual_quantiles.copy_(quantiles)

    def predict_interval(self, logits: Tensor, level: float = 0.9) -> CreatinineInterval:
        """Put the interval that holds a share ``level`` of people around this network's logits ``(B, O)``."""
        tails = torch.tensor([(1.0 - level) / 2.0, (1.0 + level) / 2.0], dtype=torch.float64)
        low, high = torch.quantile(self.log_residual_quantiles.double().cpu(), tails).to(logits)
        return CreatinineInterval(logits[:, 0], logits[:, 0] + low, logits[:, 0] + high)

    def _image_branch(self) -> list[nn.Module]:
        modules = [self.slice_projection, self.position_projection, self.pool, self.image_adapter]
        return [module for module in modules if module is not None]


def position_waves(positions_mm: Tensor, is_valid: Tensor) -> Tensor:
    """Describe places along the body by sines and cosines, from the middle of the valid slices.

    Args:
        positions_mm: place of each slice, ``(B, S)``.
        is_valid: true where a slice holds an image, ``(B, S)`` bool.

    Returns:
        ``(B, S, 12)``.
    """
    weights = is_valid.to(positions_mm)
    count = weights.sum(dim=1, keepdim=True).clamp(min=1.0)
    centred = positions_mm - (positions_mm * weights).sum(dim=1, keepdim=True) / count
    wavelengths = torch.tensor(_WAVELENGTHS_MM, device=positions_mm.device, dtype=positions_mm.dtype)
    angle = 2.0 * math.pi * (centred * weights).unsqueeze(-1) / wavelengths  # (B, S, 6)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def ckd_fusion_small(*, backbone: Mapping[str, Any] | None = None, **overrides: Any) -> CKDFusion:
    """Build the embedded default: a small ViT and the geometry of 24 mask slices of 128 × 128 at 2.5 mm.

    The trunk's image features are ranks of ``SIDE_MEASURES``
    (:mod:`shared_nets.transforms.kidney_measures`) as it reads them; :class:`SliceGeometry` adds measures
    that are computed. The clinical embedding is that of the small TabPFN checkpoint.

    Args:
        backbone: arguments of the trunk (:func:`vit_tiny_patch16`) that differ.
        overrides: arguments of :class:`CKDFusion` that differ.
    """
    trunk = vit_tiny_patch16(**{"img_size": 128, **(backbone or {})})
    embedded = {
        "num_slices": 24,
        "image_features": 16,
        "clinical_dim": 96,
        "geometry": SliceGeometry(),
        "num_members": 20,
        "dropout_rate": 0.3,
    }
    return CKDFusion(**{"backbone": trunk, "embed_dim": trunk.embed_dim, **embedded, **overrides})


def ckd_fusion_base(*, backbone: Mapping[str, Any] | None = None, **overrides: Any) -> CKDFusion:
    """Build the published size: ViT-B/16 (AMOS), 32 slices of 224 × 224, projected to 192 and concatenated.

    Args:
        backbone: arguments of the trunk (:func:`vit_base_patch16_amos`) that differ.
        overrides: arguments of :class:`CKDFusion` that differ.
    """
    trunk = vit_base_patch16_amos(**(backbone or {}))
    published = {
        "in_channels": 3,
        "num_slices": 32,
        "slice_features": 192,
        "pooling": "concat",
        "channel_mean": IMAGENET_MEAN,
        "channel_std": IMAGENET_STD,
        "hidden_features": 512,
        "num_members": 1,
        "dropout_rate": 0.5,
    }
    return CKDFusion(**{"backbone": trunk, "embed_dim": trunk.embed_dim, **published, **overrides})


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}.")


def _channels(values: Sequence[float] | None, in_channels: int, default: float) -> Tensor:
    if values is not None and len(values) != in_channels:
        raise ValueError(f"channel_mean and channel_std must hold {in_channels} numbers, got {list(values)}.")
    return torch.tensor([default] * in_channels if values is None else list(values)).reshape(1, -1, 1, 1)


def _validity(slice_valid: Tensor | None, image: Tensor) -> Tensor:
    if slice_valid is None:
        return torch.ones(image.shape[:2], dtype=torch.bool, device=image.device)
    if slice_valid.shape != image.shape[:2]:
        raise ValueError(
            f"slice_valid must have shape {tuple(image.shape[:2])}, got {tuple(slice_valid.shape)}."
        )
    return slice_valid.to(torch.bool)
