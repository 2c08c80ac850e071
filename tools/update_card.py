"""Bring a bundle's metadata and the table of its card up to date with its weights and its network.

    python -m tools.update_card FOLDER [--check]

Writes the sha256 of every file in ``models/`` into ``metadata.json`` (origin and licence of a new file
must be written there by hand), and the table "At a glance" into ``docs/README.md``. With ``--check`` nothing
is written, and the exit status is 1 when something is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.bundle_rules import sha256_of

_TABLE = re.compile(r"(?<=^## At a glance\n\n)\|.*?(?=\n\n)", re.MULTILINE | re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Update, or with ``--check`` compare; 1 when something was out of date and not written."""
    parser = argparse.ArgumentParser(prog="python -m tools.update_card", description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    stale = [
        path.name
        for path, content in updated_files(options.bundle).items()
        if content != path.read_text(encoding="utf-8")
    ]
    if options.check:
        print(f"out of date: {', '.join(stale)}" if stale else "up to date")
        return int(bool(stale))
    for path, content in updated_files(options.bundle).items():
        path.write_text(content, encoding="utf-8")
    print(f"written: {', '.join(stale)}" if stale else "nothing to write")
    return 0


def updated_files(bundle: Path) -> dict[Path, str]:
    """Say what ``metadata.json`` and the card must hold.

    Args:
        bundle: folder of the bundle.

    Returns:
        Content by path.

    Raises:
        ValueError: the card has no table under "At a glance".
    """
    metadata_path, card_path = bundle / "configs" / "metadata.json", bundle / "docs" / "README.md"
    metadata = json.loads(metadata_path.read_text(encoding="utf-8"))
    stated = metadata.get("weights", {})
    metadata["weights"] = {
        name: {**stated.get(name, {"origin": "", "licence": ""}), "sha256": sha256_of(bundle / name)}
        for name in sorted(f"models/{path.name}" for path in (bundle / "models").iterdir() if path.is_file())
    }
    card = card_path.read_text(encoding="utf-8")
    if not _TABLE.search(card):
        raise ValueError(f'{card_path.name} must have a table under "## At a glance", got none.')
    table = glance_table(metadata, network_of(bundle))
    return {
        metadata_path: json.dumps(metadata, indent=4, ensure_ascii=False) + "\n",
        card_path: _TABLE.sub(lambda _: table, card, count=1),
    }


def network_of(bundle: Path) -> dict[str, Any]:
    """Build a bundle's network; its class, function and number of parameters."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def")
    target = str(parser.get("network_def::_target_")).rpartition(".")[2]
    count = sum(parameter.numel() for parameter in network.parameters())
    return {"class": type(network).__name__, "target": target, "parameters": count}


def glance_table(metadata: dict[str, Any], network: dict[str, Any]) -> str:
    """Write the table.

    Args:
        metadata: content of ``metadata.json``.
        network: as :func:`network_of` gives it.

    Returns:
        Markdown, without a final newline.
    """
    formats = metadata["network_data_format"]
    rows = [
        ("Version", metadata["version"]),
        ("Task", metadata["task"]),
        *(("Network input", _tensor(name, facts)) for name, facts in formats["inputs"].items()),
        *(("Network output", _tensor(name, facts)) for name, facts in formats["outputs"].items()),
        ("Network", f"`{network['class']}` by `{network['target']}`, {network['parameters']:,} parameters"),
        *(
            (f"`{name}`", f"{facts['origin']}; {facts['licence']}; sha256 `{facts['sha256'][:16]}…`")
            for name, facts in metadata["weights"].items()
        ),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)])


def _tensor(name: str, facts: dict[str, Any]) -> str:
    shape = " × ".join(str(n) for n in (facts["num_channels"], *facts["spatial_shape"]))
    return f"`{name}`: {shape}, {facts['dtype']}: {facts['channel_def']['0']}"


if __name__ == "__main__":
    sys.exit(main())
