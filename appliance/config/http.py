"""`[http]`: the port, who may use it, and its limits."""

from typing import Literal

from appliance.config.section import NotNegative, Port, Positive, Seconds, Section


class HttpConfig(Section, frozen=True):
    """`[http]`: where and how requests come in, and their limits.

    What is asked and answered: docs/http.md.
    """

    host: str = "127.0.0.1"
    """Address to bind. Beyond loopback it needs `tokens_file`, or `auth = "none"`."""
    port: Port = 8080
    """TCP port; 0 lets the system choose, and the log line `listening` tells which."""
    certificate: str = ""
    """Certificate of the port (PEM, with those between it and the authority): requests come over TLS 1.2 or later. Read
    again when the file changes, and on SIGHUP.
    """
    key: str = ""
    """Its key (PEM, without a password); empty: it stands in the file of the certificate."""
    client_ca: str = ""
    """Authorities (PEM): only clients with a certificate that one of them signed are let in."""
    origins: tuple[str, ...] = ()
    """Sites whose pages may ask and read answers (CORS), as `https://app.example`; with tokens, `*` is all."""
    processes: Positive = 1
    """Processes that share the port. One is smallest; two nearly double small requests on two cores."""
    threads: Positive = 2
    """Threads of each process for large or slow requests; small ones run where they were read."""
    auth: Literal["tokens", "none"] = "tokens"
    """`none`: a port beyond loopback needs no token. `tokens`: it needs `tokens_file`."""
    tokens_file: str = ""
    """File of tokens (docs/configuration.md#the-tokens-file). Once set, requests from this host need one too."""
    hosts: tuple[str, ...] = ()
    """Names by which this host is asked where no token is needed, beside its addresses and localhost. Requests of
    another name (`Host`), or of another site's page (`Origin`), are refused: 403.
    """
    max_body_bytes: Positive = 32 * 1024 * 1024
    """Bytes of a body, as sent and as decompressed; beyond: 413."""
    max_decoded_bytes: NotNegative = 0
    """Bytes of memory that all large requests of one process may take together, decoded and answered; beyond: 413 with
    the number, or 503 while others hold them. 0: a quarter of the cgroup's or the host's limit, divided by `processes`,
    at most 128 MiB.
    """
    max_rows: Positive = 100_000
    """Rows in one request; beyond: 413."""
    max_nesting: Positive = 32
    """Brackets within brackets in a JSON body; beyond: 413."""
    max_waiting: Positive = 256
    """Requests of one process that run or wait; one more is answered 503."""
    max_connections: Positive = 1024
    """Open connections of one process; for one more, one that does not read its answers, is silent or slow makes room:
    of the client with the most connections first.
    """
    request_timeout: Seconds = 30.0
    """Seconds from a request's first byte to its last; a slower one is answered 408."""
    idle_timeout: Seconds = 120.0
    """Seconds after which a connection without a request is closed."""
    health_route: str = ""
    """One more path that answers as `/health/ready`."""
    predict_route: str = ""
    """One more path that answers as `/invocations`."""
    drain_timeout: Seconds = 20.0
    """Seconds that running requests have to finish after SIGTERM."""
