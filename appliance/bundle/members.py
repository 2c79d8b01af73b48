"""The members of a bundle: their names, their order, and how large each may be."""

MANIFEST = "manifest.json"
MODEL = "model.onnx"
PARITY = "parity.json"
EXAMPLES = "examples.npz"
BASELINE = "baseline.json"
SIGNATURE = "model.sig"

ORDER = (MANIFEST, MODEL, PARITY, EXAMPLES, BASELINE, SIGNATURE)
"""Every member there is, in the order in which the zip has them."""
OPTIONAL = frozenset({BASELINE, SIGNATURE})
NOT_DIGESTED = frozenset({MANIFEST, SIGNATURE})
"""The manifest digests the others; the signature signs them all. Neither can stand in the manifest's own list."""
JSON = (PARITY, BASELINE)
"""The members in JSON beside the manifest: held whole in memory when they are checked, hence capped."""

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_SIGNATURE_BYTES = 4 * 1024 * 1024
"""Of any folder's model.sig: an offline kit has many files."""
MAX_BUNDLE_SIGNATURE_BYTES = 256 * 1024
"""Of a bundle's: six digests and an envelope take 2 KiB; it is read before anything is trusted."""
MAX_JSON_BYTES = 16 * 1024 * 1024
"""Of parity.json and of baseline.json."""
MAX_MEMBER_BYTES = 2 * 1024**3
"""protobuf, and so ONNX without external data, ends at 2 GiB."""
MAX_MEMBERS = 64
"""Entries of the zip's table that are looked at, known or not."""
MAX_TABLE_BYTES = 64 * 1024
"""Of the zip's table: 64 entries with short names take a tenth of it."""
MAX_BUNDLE_BYTES = 1024**3
"""Of all members together, unpacked, where the configuration ([store] max_bundle_bytes) says nothing else."""

OWN_CAPS = {MANIFEST: MAX_MANIFEST_BYTES, SIGNATURE: MAX_BUNDLE_SIGNATURE_BYTES}
