"""Which processor this is, and which of its vector extensions decide what onnxruntime computes."""

import hashlib
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_VECTORS = ("neon", "asimd", "sve", "sse4_1", "avx", "fma", "avx2", "avx512f", "avx512_vnni", "amx_tile")
_MODEL_KEYS = ("model name", "Model", "Hardware", "CPU part")


def describe(cpuinfo: Path = CPUINFO) -> str:
    """Return one line that tells processors apart: architecture, model, and the first digits of its flags' SHA-256."""
    facts = _facts(cpuinfo)
    model = next((facts[key] for key in _MODEL_KEYS if facts.get(key)), "unknown model")
    digest = hashlib.sha256(" ".join(sorted(flags(cpuinfo))).encode()).hexdigest()[:8]
    return f"{platform.machine()}, {model}, flags {digest}"


def vector_extensions(cpuinfo: Path = CPUINFO) -> list[str]:
    """Return the vector extensions that onnxruntime has kernels for and this processor has."""
    have = flags(cpuinfo)
    return [name for name in _VECTORS if name in have]


def flags(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Return the processor's feature flags as Linux names them; empty where /proc does not tell."""
    facts = _facts(cpuinfo)
    return frozenset((facts.get("flags") or facts.get("Features") or "").split())


def _facts(cpuinfo: Path) -> dict[str, str]:
    """Return the key: value lines of the first processor (ARM puts lines for the whole machine at the end)."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    facts: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    return facts
