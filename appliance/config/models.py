"""`[models]`: how versions are loaded and run."""

from typing import Literal

from appliance.config.section import NotNegative, NotNegativeSeconds, Positive, Seconds, Section


class ModelsConfig(Section, frozen=True):
    """`[models]`: how versions are loaded and run."""

    threads: Positive = 1
    """Intra-op threads of one onnxruntime session. More than one helps large batches alone."""
    poll_seconds: Seconds = 0.5
    """Seconds between two looks at what the store says is active."""
    pinned_versions: NotNegative = 2
    """Inactive versions kept loaded because requests named them; a further one is answered 503 until one of them was
    idle for a minute.
    """
    self_test_seconds: Seconds = 30.0
    """Seconds that load and self-test of a version may take, in a process of their own; beyond: refused."""
    max_memory_bytes: NotNegative = 0
    """Bytes that load and self-test may take beside the program itself. 0: 8 times `model.onnx`, at least 512 MiB, and
    at most half of what host or cgroup has.
    """
    run_seconds: NotNegativeSeconds = 60.0
    """Seconds after which the run of a graph is ended (413, or the error topic), between two of its nodes or turns of a
    loop; 0: never.
    """
    batching: Literal["auto", "off"] = "auto"
    """Whether small HTTP requests that wait at the same time are answered by one run: `auto` where that saves a version
    time, which is measured when it is loaded. See docs/http.md#requests-that-wait-together.
    """
    overflow: Literal["refuse", "answer"] = "refuse"
    """What to do with an infinite answer to a row of finite numbers: `refuse` (400), or `answer` for models where
    infinity is a valid answer, as a log density. See docs/http.md#numbers-without-an-end.
    """
    default: str = ""
    """The model that `/predict` and `/invocations` mean; empty where only one is active."""
