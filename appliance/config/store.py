"""`[store]` and `[pull]`: where versions are kept, and where new ones come from."""

from typing import Literal

from appliance.config.section import Positive, Seconds, Section

DEFAULT_STATE_DIR = "/var/lib/appliance"


class StoreConfig(Section, frozen=True):
    """`[store]`: the state folder."""

    state_dir: str = DEFAULT_STATE_DIR
    """Folder of the installed versions and receipts; also `--state-dir`."""
    preload_dir: str = "/opt/ml/model"
    """Bundles found here are installed and activated when the service starts."""
    preload_inputs_changed: bool = False
    """Whether one of `preload_dir` goes live also if its inputs, outputs or labels differ from the active version's."""
    trusted_keys: tuple[str, ...] = ()
    """Files of public keys (PEM), one of which must have signed what is installed and what goes live; several for
    rotation, in files of their own or in one. Read again each time. In the variable they stand between `:` or `,`.
    """
    revoke: Literal["keep", "stop"] = "keep"
    """What happens to a serving version when its key is no longer trusted: `keep` it serving and report it in health
    and status, or `stop` it.
    """
    max_bundle_bytes: Positive = 1024**3
    """Bytes of one bundle's members together, unpacked; a larger one is refused before anything of it is inflated."""


class PullConfig(Section, frozen=True):
    """`[pull]`: where `appliance pull` takes signed bundles from.

    Nothing is pulled while `source` is empty, nor without `[store] trusted_keys`: docs/how-to/pull.md.
    """

    source: str = ""
    """A folder, `https://HOST/PATH/index.json`, `oci://REGISTRY/REPOSITORY:TAG` or `...@sha256:DIGEST`."""
    activate: bool = True
    """Whether what was installed is activated, after its self-test."""
    models: tuple[str, ...] = ()
    """Models that may be installed although they are not here yet; installed models follow the source."""
    allow_older: bool = False
    """Whether a version is taken that is not newer than the newest that was ever installed here."""
    inputs_changed: bool = False
    """Whether a version is activated whose inputs, outputs or labels differ from the active version's."""
    ca_file: str = ""
    """Authorities (PEM) that may have signed the server's certificate; empty: the system's."""
    cert_file: str = ""
    """Our certificate (PEM), for servers that ask for one."""
    key_file: str = ""
    """Its key (PEM), without a password."""
    token_file: str = ""
    """File that holds one line: a token, or `user:password`; never sent without TLS."""
    proxy: str = ""
    """`http://HOST:PORT` of an HTTP proxy; empty: none, whatever `https_proxy` says."""
    auth_hosts: tuple[str, ...] = ()
    """Token servers that may see the password of `token_file` beside the registry itself: `HOST`, in the file also
    `HOST:PORT`.
    """
    timeout: Seconds = 30.0
    """Seconds of silence after which a connection is given up."""
    deadline: Seconds = 1800.0
    """Seconds that one pull may take as a whole, shared out among its bundles; the next pull goes on with what was
    begun.
    """
    max_bytes: Positive = 2 * 1024**3
    """Bytes of one bundle; a larger one is refused before it is fetched."""
