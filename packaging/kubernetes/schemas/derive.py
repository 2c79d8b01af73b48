"""Derives the schemas beside this file from official definitions: `python derive.py DEFINITION.yaml...`

Kept whole is what the manifests of this folder use; of what they do not use only the name is kept, so that a name that
does not exist is still an error.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
MANIFESTS = FOLDER.parent
KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "format")
SECTIONS = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}


def main(definitions: list[Path]) -> None:
    """Write a schema for each kind that a manifest has and a definition defines."""
    for definition in definitions:
        found = yaml.safe_load(definition.read_text())
        kind, group = found["spec"]["names"]["kind"], found["spec"]["group"]
        for version in found["spec"]["versions"]:
            used = [
                one for one in documents() if (one["apiVersion"], one["kind"]) == (f"{group}/{version['name']}", kind)
            ]
            if used:
                schema = derived(version["schema"]["openAPIV3Schema"], used)
                schema["properties"].update(SECTIONS)
                (FOLDER / f"{kind}.json").write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n")
                print(f"{kind}.json: from {definition.name}, {version['name']}")


def documents() -> Iterator[dict[str, Any]]:
    """Yield every manifest of the folder."""
    for path in sorted(MANIFESTS.rglob("*.yaml")):
        yield from filter(None, yaml.safe_load_all(path.read_text()))


def derived(schema: dict[str, Any], used: list[Any]) -> dict[str, Any]:
    """Return the part of an OpenAPI schema that judges the values in `used`."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("nullable"):
        kept["type"] = [kept["type"], "null"]
    objects = [value for value in used if isinstance(value, dict)]
    items = [item for value in used if isinstance(value, list) for item in value]
    if "properties" in schema:
        kept["properties"] = {
            name: derived(below, values) if (values := [one[name] for one in objects if name in one]) else {}
            for name, below in schema["properties"].items()
        }
        kept["required"] = schema.get("required", [])
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            kept["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        values = [value for one in objects for value in one.values()]
        kept["additionalProperties"] = derived(schema["additionalProperties"], values)
    if "items" in schema:
        kept["items"] = derived(schema["items"], items)
    return kept


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
