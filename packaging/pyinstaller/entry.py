"""The first module of the binary: what the command `appliance` runs."""

import os
from pathlib import Path

# The binary's OpenSSL looks for authorities in /etc/ssl, as on Debian, Ubuntu and SUSE; Red Hat's are here.
RED_HAT = Path("/etc/pki/tls/cert.pem")
if RED_HAT.exists():
    os.environ.setdefault("SSL_CERT_FILE", str(RED_HAT))

from appliance.cli import main  # noqa: E402 - the variable stands before anything can ask for it

main()
