"""The version that answers an HTTP request while an experiment runs, and the routing key that decides it.

The key is the first that is found: the header X-Routing-Key, what the protocol has for it (Open Inference's
`parameters.routing_key`), the column that the experiment names, the caller's token where the experiment says `caller`.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from appliance.inference.version import LoadedVersion
from appliance.rest.http_types import Context, Request, Routed

HEADER = "X-Experiment"
"""Of the answer: ID/VERSION of the experiment and of the arm that answered."""
LONGEST_KEY = 256
"""Characters of a key that count."""


def version_for(
    context: Context,
    request: Request,
    name: str | None = None,
    version: str | None = None,
    key_in_body: Callable[[Request], str] | None = None,
) -> LoadedVersion:
    """Return the version that answers, as Predictor.route does; call it once for a request.

    `key_in_body` reads the key that the protocol has a place for, and is asked only while an experiment runs. Where a
    column is the key, the active version is returned, whose columns are every arm's; settled() then says which answers.
    """
    arms = context.models.arms(name) if version is None else None
    if arms is None:
        return context.models.get(name, version)
    routed = request.routed = Routed(arms)
    environ = request.environ
    key = environ.get("HTTP_X_ROUTING_KEY", "") or (key_in_body(request) if key_in_body else "")
    if not key and arms.column:
        return arms.base
    if not key and arms.by_caller:
        key = _caller(environ)
    if len(key) > LONGEST_KEY:
        key = key[:LONGEST_KEY]
    request.keys = (key,)
    routed.loaded = loaded = arms.pick(key)
    return loaded


def settled(request: Request, version: LoadedVersion, feeds: Mapping[str, Any]) -> LoadedVersion:
    """Return the version that answers `feeds`: `version`, or another arm where a column of the first row is the key."""
    routed = request.routed
    if routed is None or routed.loaded is not None:
        return version
    key = routed.arms.key_of_feeds(feeds)[:LONGEST_KEY]
    request.keys = (key,)
    routed.loaded = routed.arms.pick(key)
    return routed.loaded


def _caller(environ: Mapping[str, Any]) -> str:
    """Return a digest of a request's token, "" without one.

    Tokens have no names, and the digest does not reveal them.
    """
    token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")[2].strip()
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()[:16] if token else ""
