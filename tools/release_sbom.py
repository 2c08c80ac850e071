"""Say in CycloneDX what a released bundle is made of: its code, its weights, and the packages it needs."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of addresses, RFC 4122
_LICENCE = "Apache-2.0"


def sbom_json(
    metadata: Mapping[str, Any],
    *,
    archive: bytes,
    carried_name: str,
    package_version: str,
    requirements: Mapping[str, str],
    created: datetime,
) -> str:
    """Write the bill of materials of a released bundle, the same bytes for the same release.

    Args:
        metadata: content of the bundle's ``metadata.json``.
        archive: the zip.
        carried_name: name of the package that it carries.
        package_version: version of that package.
        requirements: version of every package that it needs, by name.
        created: when the release is said to have been made.

    Returns:
        CycloneDX 1.6, JSON.

    Raises:
        ImportError: cyclonedx-python-lib is not installed.
    """
    try:
        from cyclonedx.model import HashAlgorithm, HashType, Property
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
        from cyclonedx.output.json import JsonV1Dot6
        from packageurl import PackageURL
    except ImportError as error:
        raise ImportError(
            "A release needs cyclonedx-python-lib: pip install 'shared_nets[release]'."
        ) from error

    def sha256(digest: str) -> HashType:
        return HashType(alg=HashAlgorithm.SHA_256, content=digest)

    bundle = Component(
        name=metadata["name"],
        version=metadata["version"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="bundle",
        description=metadata["description"],
        licenses=[LicenseExpression(_LICENCE)],
        hashes=[sha256(hashlib.sha256(archive).hexdigest())],
        properties=[Property(name="intended use", value=metadata["intended_use"])],
    )
    code = Component(
        name="shared_nets",
        version=package_version,
        type=ComponentType.LIBRARY,
        bom_ref=carried_name,
        description=f"carried as {carried_name}",
        licenses=[LicenseExpression(_LICENCE)],
    )
    weights = [
        Component(
            name=name,
            version=metadata["version"],
            type=ComponentType.DATA,
            bom_ref=name,
            description=facts["origin"],
            licenses=[DisjunctiveLicense(name=facts["licence"])],
            hashes=[sha256(facts["sha256"])],
        )
        for name, facts in metadata.get("weights", {}).items()
    ]
    packages = [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}=={version}",
            purl=PackageURL(type="pypi", name=name.lower(), version=version),
        )
        for name, version in requirements.items()
    ]
    bom = Bom(
        components=[code, *weights, *packages],
        metadata=BomMetaData(component=bundle, timestamp=created.astimezone(UTC)),
        serial_number=uuid.uuid5(_NAMESPACE, hashlib.sha256(archive).hexdigest()),
        version=1,
    )
    bom.register_dependency(bundle, [code, *weights])
    bom.register_dependency(code, packages)
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return text + "\n"
