"""How long the binary takes from its start to its first answered prediction, beside the same from Python.

    start.py BINARY PYTHON STATE    two commands (`appliance`), and a state folder with an active model

Prints the median seconds of both, which take turns, and their ratio. One turn of each goes before, unmeasured.
"""

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time

TURNS = 9


def main() -> None:
    """Measure and print."""
    commands, state = sys.argv[1:3], sys.argv[3]
    seconds: dict[str, list[float]] = {command: [] for command in commands}
    for turn in range(TURNS + 1):
        for command in commands:
            taken = first_prediction(command, state)
            if turn:
                seconds[command].append(taken)
    binary, python = (statistics.median(seconds[command]) for command in commands)
    print(f"binary {binary:.3f} s, Python {python:.3f} s, ratio {binary / python:.2f}")


def first_prediction(command: str, state: str) -> float:
    """Return the seconds from the start of the service to its first answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    own = {"APPLIANCE_STATE_DIR": state, "APPLIANCE_HTTP_PORT": str(port)}
    start = time.perf_counter()
    with subprocess.Popen([command, "serve"], env=os.environ | own, stderr=subprocess.DEVNULL) as service:  # noqa: S603
        while not answers(port):
            if service.poll() is not None:
                sys.exit(f"{command} serve has ended ({service.returncode})")
            time.sleep(0.005)
        taken = time.perf_counter() - start
        service.terminate()
    return taken


def answers(port: int) -> bool:
    """Return whether a prediction is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/predict", json.dumps({"features": [6.3, 3.3, 6.0, 2.5]}))
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
