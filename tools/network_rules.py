"""Hold a bundle to what MONAI's own tools expect of it, by building it: properties, network, weights.

Used by ``python -m tools.verify_bundle`` and by the tests; each rule yields one sentence a breach. Nothing
asks a network, and no configuration is run.
"""

from __future__ import annotations

import contextlib
import io
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.bundle.reference_resolver import ReferenceResolver
from torch import nn

from tools.bundle_rules import SCHEMA
from tools.config_rules import BASES, overlay_bases, read_config
from tools.update_card import updated_files

_WORKFLOWS = {"inference.json": "infer", "train.json": "train"}
_TORCH_SUFFIXES = {".pt", ".ckpt"}
#: Fills what the metadata leave open of a network's input (``*``), as MONAI's check wants it.
_ANY_SIZE = 32


def network_problems(bundle: Path) -> list[str]:
    """Check everything about a bundle that is only seen when it is built.

    Args:
        bundle: its folder; :func:`tools.bundle_rules.bundle_problems` should have found nothing.

    Returns:
        One sentence a breach; empty when all is well.
    """
    rules: tuple[Callable[[Path], Iterator[str]], ...] = (
        _schema_problems,
        _property_problems,
        _reference_problems,
        _shape_problems,
        _twin_problems,
        _weight_problems,
        _card_problems,
    )
    return [problem for rule in rules for problem in rule(bundle)]


def parser_of(bundle: Path, *names: str) -> ConfigParser:
    """Read configurations of a bundle, later ones over earlier ones, for the CPU."""
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / name) for name in names])
    parser.read_meta(str(bundle / "configs" / "metadata.json"))
    parser["bundle_root"] = str(bundle)
    parser["device"] = "$torch.device('cpu')"
    return parser


def combinations(bundle: Path) -> list[tuple[str, ...]]:
    """List every way in which the configurations of a bundle are run: bases, and overlays on their bases."""
    runs: list[tuple[str, ...]] = [(base,) for base in BASES]
    for path in sorted((bundle / "configs").glob("*.json")):
        if path.name not in {"metadata.json", *BASES}:
            runs += [(base, path.name) for base in overlay_bases(read_config(path)[0])]
    return runs


def undefined_references(parser: ConfigParser) -> set[str]:
    """Find what is referred to by ``@`` and defined nowhere."""
    parser.parse(reset=True)
    items = parser.ref_resolver.items
    texts = (item.get_config() for item in items.values())
    wanted = (ReferenceResolver.match_refs_pattern(text) for text in texts if isinstance(text, str))
    return {name for names in wanted for name in names if name not in items}


def first_line(error: BaseException) -> str:
    """Give the first line of the first cause: MONAI and torch wrap what happened in texts of their own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).splitlines() or [""])[0]


def _schema_problems(bundle: Path) -> Iterator[str]:
    with _failure("metadata.json must fit MONAI's schema") as failures, quiet():
        verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(SCHEMA))
    yield from failures


def _property_problems(bundle: Path) -> Iterator[str]:
    """What MONAI requires of a workflow is there and can be built; a stand-in is given for the data."""
    for name, workflow in _WORKFLOWS.items():
        content, _ = read_config(bundle / "configs" / name)
        sections = {
            "": content,
            "train::": content.get("train", {}),
            "validate::": content.get("validate", {}),
        }
        stand_in: Any = {"_target_": "Dataset", "data": [{}]}
        missing: list[str] | None = []
        with _failure(f"{name} must give what MONAI requires of it") as failures, quiet():
            flow = ConfigWorkflow(
                config_file=str(bundle / "configs" / name),
                workflow_type=workflow,
                logging_file=False,
                bundle_root=str(bundle),
                device="$torch.device('cpu')",
                initialize=[],
                **{f"{prefix}dataset": stand_in for prefix, part in sections.items() if "dataset" in part},
            )
            flow.initialize()
            missing = flow.check_properties()
        yield from failures
        if missing:
            yield f"{name} must have MONAI's required properties, lacks {', '.join(missing)}."


def _reference_problems(bundle: Path) -> Iterator[str]:
    for names in combinations(bundle):
        if undefined := undefined_references(parser_of(bundle, *names)):
            yield f"{' + '.join(names)} must define what it refers to, lacks {', '.join(sorted(undefined))}."


def _shape_problems(bundle: Path) -> Iterator[str]:
    with _failure("the network must take and give what metadata.json says") as failures, quiet():
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(bundle / "configs" / "metadata.json"),
            config_file=str(bundle / "configs" / "inference.json"),
            device="cpu",
            any=_ANY_SIZE,
            bundle_root=str(bundle),
        )
    yield from failures


def _twin_problems(bundle: Path) -> Iterator[str]:
    """Training and inference build one network."""
    descriptions = []
    with _failure("inference.json and train.json must build their network_def") as failures:
        for name in BASES:
            network: nn.Module = parser_of(bundle, name).get_parsed_content("network_def")
            shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
            descriptions.append((repr(network), shapes))
    yield from failures
    if not failures and descriptions[0] != descriptions[1]:
        yield "inference.json and train.json must build one network, got two that differ."


def _weight_problems(bundle: Path) -> Iterator[str]:
    """Every file of torch loads without running code; ``model.pt`` is a bare, finite state dict that fits."""
    for path in sorted((bundle / "models").glob("*")):
        if path.suffix in _TORCH_SUFFIXES:
            try:
                state: Any = torch.load(path, map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
                yield f"models/{path.name} must load without running code, got: {first_line(error)}"
                continue
            if path.name == "model.pt":
                yield from _state_problems(bundle, state)


def _state_problems(bundle: Path, state: Any) -> Iterator[str]:
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        yield "models/model.pt must be a bare state dict."
        return
    if not all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point()):
        yield "models/model.pt must hold finite numbers only."
    with _failure("models/model.pt must fit the network key by key") as failures:
        parser_of(bundle, "inference.json").get_parsed_content("network_def").load_state_dict(
            state, strict=True
        )
    yield from failures


def _card_problems(bundle: Path) -> Iterator[str]:
    """What ``python -m tools.update_card`` writes is up to date."""
    stale: list[str] = []
    with _failure("docs/README.md must have its generated table") as failures:
        stale = [
            path.relative_to(bundle).as_posix()
            for path, content in updated_files(bundle).items()
            if path.read_text(encoding="utf-8") != content
        ]
    yield from failures
    for name in stale:
        yield f"{name} must be what python -m tools.update_card writes; run it."


@contextlib.contextmanager
def _failure(rule: str) -> Iterator[list[str]]:
    """Turn what MONAI raises, whatever it is, into a breach of ``rule``."""
    failures: list[str] = []
    try:
        yield failures
    except Exception as error:  # configurations can fail in any way, and each is a finding
        failures.append(f"{rule}, got {type(error).__name__}: {first_line(error)}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what MONAI and torch print, log and warn of out of a report; what they raise is kept."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
