"""What a service reports over HTTP: readiness, the models it serves, and its counters over a while."""

from __future__ import annotations

import json
import re
import ssl
import time
import urllib.error
import urllib.request

REQUESTS = "appliance_requests_total"
SECONDS = "appliance_request_seconds_sum"
ANSWERED = "appliance_request_seconds_count"
TIMEOUT = 5.0
"""Seconds for one answer."""

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_DEFAULT = "http://127.0.0.1:8080"


class Service:
    """A host's service; `token` goes with what asks for one.

    `where` gives (its URL without a slash at the end, its certificate, its key); it is asked again when nothing answers
    there: a service that starts again may have another port, or TLS.
    """

    def __init__(self, where, token=""):
        """Join the parts; nothing is asked yet."""
        self.url = ""
        self.token = token
        self._where = where
        self._opener = None

    def get(self, path):
        """Return (HTTP status, body); (0, the reason) when nothing answers."""
        try:
            if self._opener is None:
                self.url, certificate, key = self._where()
                self._opener = _opener(certificate, key)
        except (OSError, ValueError) as error:
            return 0, str(error)
        status, body = self._asked(path)
        if not status:
            self._opener = None
        return status, body

    def _asked(self, path):
        """Return (HTTP status, body); (0, the reason) when nothing answers."""
        request = urllib.request.Request(self.url + path)  # noqa: S310 - http or https, of this host
        if self.token:
            request.add_header("Authorization", "Bearer " + self.token)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return answer.status, answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode("utf-8", "replace")
        except (OSError, ValueError) as error:
            return 0, str(error)

    def readiness(self):
        """Return (whether it is ready, why not)."""
        status, body = self.get("/health/ready")
        if status == 200:
            return True, []
        if not status:
            return False, [f"nothing answers at {self.url} ({body})"]
        return False, document(body).get("reasons") or [f"HTTP {status}"]

    def serving(self):
        """Return {model: version that answers}; {} when it does not say."""
        status, body = self.get("/models")
        models = document(body).get("models", []) if status == 200 else []
        return {model["name"]: model.get("serving") for model in models}

    def counters(self):
        """Return {model: requests, errors, answered, seconds} since the service started; None when it does not say."""
        status, body = self.get("/metrics")
        return counted(body) if status == 200 else None


def where(status):
    """Return (URL, certificate, key) of the service by what `appliance status --json` says."""
    found = status.get("service") or {}
    url = found.get("url") or _DEFAULT
    tls = found.get("tls") or {}
    return "/".join(url.split("/")[:3]), tls.get("certificate", ""), tls.get("key", "")


def _opener(certificate, key):
    """Return what opens URLs of a service: over TLS it expects this very certificate, whatever name it bears.

    `key` is its key, where the service asks its callers for a certificate: its own is the one at hand.
    """
    # Each host asks its own service, so a proxy of the environment must not be used.
    handlers = [urllib.request.ProxyHandler({})]
    if certificate:
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False
        context.verify_flags |= getattr(ssl, "VERIFY_X509_PARTIAL_CHAIN", 0x80000)  # named since Python 3.10
        if key:
            context.load_cert_chain(certificate, key)
        handlers.append(urllib.request.HTTPSHandler(context=context))
    return urllib.request.build_opener(*handlers)


def document(body):
    """Return a JSON object; {} for anything else."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def counted(text):
    """Return {model: {requests, errors, answered, seconds}} of a page in the Prometheus text format.

    All versions of a model together. Requests for no known model are not among them: they are their callers' mistake.
    """
    found = {}
    for name, labels, value in samples(text):
        if not labels.get("model") or name not in (REQUESTS, SECONDS, ANSWERED):
            continue
        counts = found.setdefault(labels["model"], dict.fromkeys(("requests", "errors", "answered", "seconds"), 0.0))
        if name == REQUESTS:
            counts["requests"] += value
            counts["errors"] += value if labels.get("outcome") == "service_error" else 0
        else:
            counts["seconds" if name == SECONDS else "answered"] += value
    return found


def samples(text):
    """Yield (name, labels, value) of each sample (Prometheus exposition format 0.0.4)."""
    for line in text.splitlines():
        match = None if line.startswith("#") else _LINE.match(line)
        if match:
            yield match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])


def between(first, last):
    """Return {model: what was counted between two readings}; None when one is missing or the service restarted."""
    if first is None or last is None:
        return None
    found = {}
    for model, counts in last.items():
        earlier = first.get(model, {})
        found[model] = {key: value - earlier.get(key, 0.0) for key, value in counts.items()}
    restarted_between = set(first) - set(last) or any(
        value < 0 for counts in found.values() for value in counts.values()
    )
    return None if restarted_between else found


def watch(service, seconds, step=1.0):
    """Look at the service for so many seconds; return {looks, not_ready, reasons, models, restarted}."""
    first, end = service.counters(), time.monotonic() + seconds
    seen = {"seconds": seconds, "looks": 0, "not_ready": 0, "reasons": []}
    while True:
        ready, reasons = service.readiness()
        seen["looks"] += 1
        if not ready:
            seen["not_ready"] += 1
            seen["reasons"] = reasons
        left = end - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(step, left))
    models = between(first, service.counters())
    return dict(seen, models=models or {}, counted=models is not None)


def wait_for(service, wanted, seconds, step=0.25):
    """Wait until the service is ready and serves the versions wanted ({model: version}); return (whether, why not)."""
    end = time.monotonic() + seconds
    while True:
        ready, reasons = service.readiness()
        serving = service.serving() if ready and wanted else {}
        wrong = [f"{name}: {serving.get(name)} answers, not {version}"
                 for name, version in sorted(wanted.items()) if serving.get(name) != version]  # fmt: skip
        if ready and not wrong:
            return True, []
        if time.monotonic() >= end:
            return False, reasons or wrong
        time.sleep(step)
