"""Start a bundle from the template.

    python -m tools.new_bundle NAME_OF_THE_TASK

The name is the folder's: snake_case, ending in the task, for instance ``liver_ct_segmentation``. What to edit
next is printed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.bundle_rules import REPOSITORY, bundle_problems, name_problems, pinned_versions

_TEMPLATE = Path(__file__).with_name("templates") / "bundle"
_EDIT_NEXT = (
    "configs/metadata.json",
    "configs/inference.json",
    "configs/train.json",
    "docs/README.md",
    "large_files.yml",
)


def make_bundle(name: str, parent: Path) -> Path:
    """Copy the template under a new name.

    Args:
        name: of the bundle, and of its folder.
        parent: folder that holds the bundles.

    Returns:
        The new folder.

    Raises:
        ValueError: ``name`` is not a bundle's name.
        FileExistsError: there is such a bundle already.
    """
    if problems := name_problems(name):
        raise ValueError(problems[0])
    folder = parent / name
    if folder.exists():
        raise FileExistsError(f"NAME must be a new one, got {name}, which is there.")
    shutil.copytree(_TEMPLATE, folder)
    shutil.copyfile(REPOSITORY / "LICENSE", folder / "LICENSE")
    versions = pinned_versions()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "LICENSE":
            text = path.read_text(encoding="utf-8")
            text = text.replace("BUNDLE_NAME", name).replace("BUNDLE_TITLE", name.replace("_", " "))
            text = re.sub(r"VERSION_OF_([\w-]+)", lambda found: versions[found.group(1)], text)
            path.write_text(text, encoding="utf-8")
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the bundle and say what to do next."""
    parser = argparse.ArgumentParser(prog="python -m tools.new_bundle", description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help="snake_case, ending in the task: liver_ct_segmentation")
    name = parser.parse_args(arguments).name
    try:
        folder = make_bundle(name, REPOSITORY / "bundles")
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    print(f"made {folder.relative_to(REPOSITORY)}; edit next:")
    for path in _EDIT_NEXT:
        print(f"  {path}")
    print("what still breaks a rule (python -m tools.verify_bundle):")
    for problem in bundle_problems(folder):
        print(f"  {problem}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
