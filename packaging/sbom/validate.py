"""Whether bills of materials follow CycloneDX's official schema: `validate.py FILE...`; needs cyclonedx-python-lib."""

import json
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main() -> int:
    """Say of each file whether it is valid; return 1 if one is not."""
    wrong = 0
    for path in map(Path, sys.argv[1:]):
        text = path.read_text(encoding="utf-8")
        version = SchemaVersion.from_version(json.loads(text)["specVersion"])
        error = JsonStrictValidator(version).validate_str(text)
        print(f"{path}: {f'not valid: {error}' if error else f'valid CycloneDX {version.to_version()}'}")
        wrong += bool(error)
    return 1 if wrong else 0


sys.exit(main())
