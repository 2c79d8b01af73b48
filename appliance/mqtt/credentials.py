"""Credentials of a broker connection: passwords and certificates, read again for each connection."""

import ssl
from pathlib import Path

from appliance import ahead
from appliance.config import BrokerConfig
from appliance.errors import ConfigError


def tls_context(config: BrokerConfig) -> ssl.SSLContext:
    """Return a context that checks the broker's certificate and name. It reads the files, so renewed ones count."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file or None, password=lambda: b"")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(filter(None, (config.ca_file, config.cert_file, config.key_file)))
        raise ConfigError(
            f"read the certificates {files}", str(error), "see [mqtt] ca_file, cert_file, key_file"
        ) from error
    return context


def password(config: BrokerConfig) -> str | None:
    """Return the password, without the newline that editors add."""
    if not config.password_file:
        return None
    try:
        return ahead.read(Path(config.password_file)).decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"read {config.password_file}", str(error), "see [mqtt] password_file") from error
