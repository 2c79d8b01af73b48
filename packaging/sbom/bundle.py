"""What a bundle is made of: `bundle.py NAME-VERSION.bundle` prints its CycloneDX 1.6 bill of materials.

The model is the component, with its digest; the libraries that trained and converted it are its parts; how it was
proved, from the certificate in the bundle, is its model card. Reads with the device's own code, every check included.
"""

import json
import sys
import uuid
from pathlib import Path
from typing import Any

from appliance.bundle import archive, manifest
from appliance.errors import ApplianceError

METHODS = {"classification": "supervised", "regression": "supervised", "clustering": "unsupervised"}


def main() -> None:
    """Print the document of the bundle that is named on the command line."""
    try:
        opened = archive.open_bundle(Path(sys.argv[1]))
    except ApplianceError as error:
        sys.exit(f"error: {error.tried}\nfound: {error.found}\nnext:  {error.next_step}")
    print(json.dumps(document(opened), indent=1))


def document(opened: archive.Bundle) -> dict[str, Any]:
    """Return the bill of materials of an opened bundle; the same bundle gives the same document."""
    about = opened.manifest
    digest = about.members["model.onnx"].sha256
    reference = f"pkg:generic/{about.name}@{about.version}?checksum=sha256:{digest}"
    parts = [_library(name, version) for name, version in sorted(about.provenance.libraries.items())]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, reference)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": reference,
                "name": about.name,
                "version": about.version,
                "purl": reference,
                "hashes": [{"alg": "SHA-256", "content": digest}],
                "modelCard": _card(about, json.loads(opened.members["parity.json"])),
                "properties": _properties(about),
            }
        },
        "components": parts,
        "dependencies": [{"ref": reference, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def _library(name: str, version: str) -> dict[str, Any]:
    """Return a library that the model was trained or converted with; it is not in the bundle."""
    package_url = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    return {
        "type": "library",
        "bom-ref": package_url,
        "name": name,
        "version": version,
        "purl": package_url,
        "scope": "excluded",
    }


def _card(about: manifest.Manifest, parity: dict[str, Any]) -> dict[str, Any]:
    """Return the model card: what it takes and gives, and how close its graph is to the original."""
    parameters: dict[str, Any] = {
        "task": about.task,
        "modelArchitecture": about.provenance.model_type,
        "inputs": [{"format": f"{one.name}: {one.type} {one.shape}"} for one in about.inputs],
        "outputs": [{"format": f"{one.name}: {one.type} {one.shape}"} for one in about.outputs],
    }
    if about.task in METHODS:
        parameters["approach"] = {"type": METHODS[about.task]}
    metrics = [
        {"type": f"{output['output']}: {what} against the original", "value": str(output[key])}
        for output in parity.get("outputs", [])
        for what, key in (
            ("label flips", "label_flips"),
            ("largest absolute difference", "largest_absolute"),
            ("largest relative difference", "largest_relative"),
        )
    ]
    card: dict[str, Any] = {"modelParameters": parameters}
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return card


def _properties(about: manifest.Manifest) -> list[dict[str, str]]:
    """Return what CycloneDX has no word of its own for."""
    opset = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(about.opset.items()))
    values = {
        "source": about.provenance.source,
        "source-sha256": about.provenance.sha256,
        "run": about.provenance.run,
        "opset": opset,
        "least-onnxruntime": about.least_onnxruntime,
        "tolerance-absolute": str(about.policy.tolerance.absolute),
        "tolerance-relative": str(about.policy.tolerance.relative),
        **{f"trained-with:{name}": version for name, version in sorted(about.provenance.trained_with.items())},
    }
    return [{"name": f"appliance:{name}", "value": value} for name, value in values.items() if value]


if __name__ == "__main__":
    main()
