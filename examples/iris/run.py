"""The main job on the iris flowers: train, convert with proof, install, activate, serve, ask for one prediction.

Keeps serving until Ctrl-C. What was trained and converted is kept in the given folder, so a second run starts quickly.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(os.path.relpath(Path(__file__).parent))
FLOWER = [6.3, 3.3, 6.0, 2.5]


def main() -> int:
    options = _options()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    bundle, state = work / "iris-1.0.0.bundle", work / "state"
    if not bundle.exists():
        _step([sys.executable, str(HERE / "train.py"), str(work)])
        sample = ["--sample", str(work / "sample.csv"), "--target", "species"]
        model = ["--name", "iris", "--version", "1.0.0"]
        _step(["appliance", "convert", str(work / "model.joblib"), *model, *sample, "-o", str(work)])
    _step(["appliance", "install", str(bundle), "--state-dir", str(state)])
    _step(["appliance", "activate", "iris", "1.0.0", "--state-dir", str(state)])
    where = ["--host", options.host, "--port", str(options.port)]
    return _serve(["appliance", "serve", *where, "--state-dir", str(state)], f"http://{options.host}:{options.port}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for the model, the bundle and the state")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    return parser.parse_args()


def _show(command: list[str]) -> None:
    print(f"$ {shlex.join(command).replace(sys.executable, 'python')}", flush=True)


def _step(command: list[str]) -> None:
    """Run one command as a person would, and stop at the first that fails."""
    _show(command)
    ended = subprocess.run(command)
    if ended.returncode:
        sys.exit(ended.returncode)


def _serve(command: list[str], url: str) -> int:
    """Serve until a signal, and ask for a prediction as soon as the service is ready."""
    _show(command)
    # A process group of its own: the service is told to stop once, by us, and not also by the terminal.
    service = subprocess.Popen(command, start_new_session=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: service.terminate())
    if _ready(service, url):
        _ask(url)
    code = service.wait()
    print("stopped" if code == 0 else f"the service ended with exit code {code}", flush=True)
    return code


def _ready(service: "subprocess.Popen[bytes]", url: str) -> bool:
    """Wait until the service answers; False when it has ended instead."""
    while service.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/health/ready"):
            return True
        time.sleep(0.05)
    return False


def _ask(url: str) -> None:
    """Ask for one prediction, show it, and show what to try next."""
    body = json.dumps({"features": FLOWER})
    request = urllib.request.Request(f"{url}/predict", body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        print(f"$ curl {url}/predict -d '{body}'\n{answer.read().decode()}\n", flush=True)
    rows = json.dumps({"features": [FLOWER, [5.1, 3.5, 1.4, 0.2]]})
    print("Serving until Ctrl-C. Try in another terminal:")
    print(f"  curl {url}/predict -d '{rows}'")
    print(f"  curl {url}/v2/models/iris")
    print(f"  curl {url}/health/ready")
    print(f"  curl {url}/metrics")
    print(f"  {os.path.relpath(Path(sys.executable).parent / 'appliance')} doctor")
    print(f"or open {url}/ in a browser.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
