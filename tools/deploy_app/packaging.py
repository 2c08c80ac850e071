"""Lay a bundle out as the packager of MONAI Deploy wants it, and say how it is called.

    python -m tools.deploy_app.packaging --bundle NAME [--output_dir map]

``app/`` is an application with its code and requirements.txt, ``models/`` the bundle with those that it runs,
``app.yaml`` what goes into the manifests. The packager itself needs Docker, and ``pip install
'monai-deploy-app-sdk==4.0.0' 'holoscan-cli==4.2.0'`` in an environment without MONAI.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from tools.bundle_rules import REPOSITORY

_APP = Path(__file__).resolve().parent
#: What requirements.txt of the application has beside that of the repository. The packager adds the SDK.
_ALSO_NEEDED = ("holoscan-cu13==4.6.0",)
_LEFT_BEHIND = shutil.ignore_patterns("__pycache__", "eval", "train", "datasets")
_OTHER_BUNDLE = re.compile(r"/\.\./(\w+)'")  # as a configuration names one that lies beside it
_MAIN = '''"""The application of one bundle; written by python -m tools.deploy_app.packaging."""

from tools.deploy_app.__main__ import main

raise SystemExit(main(bundle="{name}"))
'''


def lay_out(name: str, output_dir: Path, *, bundles: Path = REPOSITORY / "bundles") -> list[str]:
    """Write the folder that the packager reads.

    Args:
        name: of the bundle.
        output_dir: must not be there yet.
        bundles: folder of bundles.

    Returns:
        The packager's command line.

    Raises:
        ValueError: there is no such bundle, or the folder is there.
    """
    if not (bundles / name / "configs" / "inference.json").is_file():
        there = ", ".join(sorted(path.parents[1].name for path in bundles.glob("*/configs/inference.json")))
        raise ValueError(f"bundle must be one of {there}, got {name}.")
    if output_dir.exists():
        raise ValueError(f"output_dir must not be there yet, got {output_dir}.")
    app = output_dir / "app"
    shutil.copytree(REPOSITORY / "shared_nets", app / "shared_nets", ignore=_LEFT_BEHIND)
    (app / "tools").mkdir()
    for module in ("__init__.py", "settings.py"):
        shutil.copy(REPOSITORY / "tools" / module, app / "tools")
    shutil.copytree(_APP, app / "tools" / "deploy_app", ignore=_LEFT_BEHIND)
    (app / "__main__.py").write_text(_MAIN.format(name=name), encoding="utf-8")
    requirements = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    needed = "\n".join([requirements.rstrip("\n"), *_ALSO_NEEDED])
    (app / "requirements.txt").write_text(f"{needed}\n", encoding="utf-8")
    for bundle in (name, *_bundles_that_it_runs(bundles / name)):
        shutil.copytree(bundles / bundle, output_dir / "models" / bundle, ignore=_LEFT_BEHIND)
    metadata = json.loads((bundles / name / "configs" / "metadata.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((_APP / "app.yaml").read_text(encoding="utf-8"))
    config["application"] |= {"title": metadata["task"], "version": metadata["version"]}
    (output_dir / "app.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return [
        *("monai-deploy", "package", str(app), "--config", str(output_dir / "app.yaml")),
        *("--models", str(output_dir / "models"), "--platform", "x86_64", "--sdk", "monai-deploy"),
        *("--tag", f"{name}:{metadata['version']}"),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Lay the folder out and print the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.deploy_app.packaging",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", metavar="NAME", required=True)
    parser.add_argument("--output_dir", type=Path, default=Path("map"))
    chosen = parser.parse_args(arguments)
    try:
        command = lay_out(chosen.bundle, chosen.output_dir)
    except ValueError as error:
        parser.error(str(error))
    print(" ".join(command))
    return 0


def _bundles_that_it_runs(bundle: Path) -> list[str]:
    text = (bundle / "configs" / "inference.json").read_text(encoding="utf-8")
    return sorted(set(_OTHER_BUNDLE.findall(text)))


if __name__ == "__main__":
    sys.exit(main())
