"""What the parts of a program are in CycloneDX 1.6 (ECMA-424), for the bills of materials of the binary and the image.

The same parts give the same bytes: no date, and a serial number from the content.
"""

import re
import uuid
from importlib.metadata import Distribution
from typing import Any

NAME = "edge-inference-appliance"

Component = dict[str, Any]


def document(component: Component, parts: list[Component], content: str) -> dict[str, Any]:
    """Return the bill of materials of `component`, made of `parts`; `content` is a digest of what was built."""
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}",
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "component": component},
        "components": parts,
        "dependencies": [{"ref": component["bom-ref"], "dependsOn": sorted(part["bom-ref"] for part in parts)}],
    }


def python(version: str) -> Component:
    """Return the interpreter."""
    return {
        "type": "framework",
        "bom-ref": f"python@{version}",
        "name": "CPython",
        "version": version,
        "licenses": [{"license": {"id": "PSF-2.0"}}],
        "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
    }


def distribution(found: Distribution) -> Component:
    """Return one distribution of the Python Package Index, by its metadata."""
    name, version = found.metadata["Name"], found.version
    package_url = f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}"
    expression = found.metadata.get("License-Expression")
    return {
        "type": "library",
        "bom-ref": package_url,
        "name": name,
        "version": version,
        "purl": package_url,
        "licenses": [{"expression": expression}] if expression else [{"license": {"name": licence(found)}}],
    }


def licence(found: Distribution) -> str:
    """Return the licence in the words of older metadata."""
    classifiers = found.metadata.get_all("Classifier") or []
    named = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License ::")]
    first_line = (found.metadata.get("License") or "").strip().partition("\n")[0]
    return ", ".join(named) or first_line or "see its own files"


def debian(name: str, version: str, **qualifiers: str) -> Component:
    """Return one package of Debian; `qualifiers` (arch, distro) are those of its package URL."""
    more = "&".join(f"{key}={value}" for key, value in sorted(qualifiers.items()))
    package_url = f"pkg:deb/debian/{name}@{version.replace('+', '%2B').replace('~', '%7E')}{'?' if more else ''}{more}"
    return {"type": "library", "bom-ref": package_url, "name": name, "version": version, "purl": package_url}
