"""What the cgroup of this process allows it: memory and processor time (Linux cgroup v1 and v2, also side by side)."""

from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")
# v1 says "no limit" by a number near 2**63, rounded down to a page.
_NO_LIMIT_V1 = 2**60


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The tightest limit of this process's cgroup and those above it; None where there is none."""

    memory_bytes: int | None
    processors: float | None


def limits(root: Path = _ROOT, self_file: Path = _SELF) -> CgroupLimits:
    """Return the limits of this process; `root` is where the cgroup file systems are mounted."""
    memory: list[int] = []
    processors: list[float] = []
    for controllers, path in _memberships(self_file):
        for folder in _folders(root, controllers, path):
            memory += _memory(folder)
            processors += _processors(folder)
    return CgroupLimits(min(memory, default=None), min(processors, default=None))


def _memberships(self_file: Path) -> list[tuple[list[str], str]]:
    """Return (v1 controllers, path) of each line `ID:CONTROLLERS:PATH`; v2 has no controllers (cgroups(7))."""
    try:
        lines = self_file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    parts = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return [([name for name in controllers.split(",") if name], path) for _, controllers, path in parts]


def _folders(root: Path, controllers: list[str], path: str) -> list[Path]:
    """Return the folders from the cgroup up to its mount; the mount alone where a container does not see the path."""
    if controllers:
        mounts = [root / name for name in (",".join(controllers), *controllers)]
    else:
        mounts = [root, root / "unified"]
    relative = Path(path.lstrip("/"))
    return [mount / part for mount in mounts if mount.is_dir() for part in (relative, *relative.parents)]


def _memory(folder: Path) -> list[int]:
    """Return the memory limit that is set in a cgroup's folder, in bytes, [] if none."""
    texts = (_read(folder / "memory.max"), _read(folder / "memory.limit_in_bytes"))
    return [int(text) for text in texts if text.isdigit() and int(text) < _NO_LIMIT_V1]


def _processors(folder: Path) -> list[float]:
    """Return how many processors' time is allowed by a cgroup's folder, [] if without limit."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    pairs = [(quota, period), (_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))]
    return [int(quota) / int(period) for quota, period in pairs if quota.isdigit() and period.isdigit() and int(period)]


def _read(path: Path) -> str:
    """Return a file's text, "" where there is no such file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
