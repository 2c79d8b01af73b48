"""Asks one host for predictions all the while, ten a second, as a machine on the line does, and counts what fails.

    python load.py HOST PORT TOKEN ROW

Runs until its standard input ends, then prints one JSON document: asked, failed, the first failures, and how many
answers each version gave. ROW is a JSON list, a flower that is a virginica.
"""

import http.client
import json
import sys
import threading
import time
from collections import Counter

PAUSE_SECONDS = 0.1
ON_ONE_CONNECTION = 50
PATIENCE_SECONDS = 20


class Load:
    """The requests to one host, and what came of them."""

    def __init__(self, host: str, port: int, token: str, row: str) -> None:
        self.address = (host, port)
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.body = json.dumps({"features": json.loads(row)})
        self.asked = 0
        self.failures: list[str] = []
        self.versions: Counter[str] = Counter()

    def run(self, stop: threading.Event) -> None:
        """Ask until `stop`; a connection that failed is opened again."""
        while not stop.is_set():
            connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_SECONDS)
            try:
                for _ in range(ON_ONE_CONNECTION):
                    self.ask(connection)
                    if stop.wait(PAUSE_SECONDS):
                        break
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"{time.time():.3f} {type(error).__name__}: {error}")
                stop.wait(PAUSE_SECONDS)
            finally:
                connection.close()

    def ask(self, connection: http.client.HTTPConnection) -> None:
        """Ask once; raises what http.client raises, and ValueError for an answer that is none."""
        self.asked += 1
        connection.request("POST", "/predict", self.body, self.headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}: {content[:200]!r}")
        answer = json.loads(content)
        if answer["prediction"] != ["virginica"]:
            raise ValueError(f"wrong answer: {content[:200]!r}")
        self.versions[answer["version"]] += 1

    def document(self) -> dict[str, object]:
        """Return the counts."""
        failed = len(self.failures)
        return {"asked": self.asked, "failed": failed, "failures": self.failures[:5], "versions": dict(self.versions)}


def main() -> None:
    """Load the host until standard input ends."""
    host, port, token, row = sys.argv[1:]
    load, stop = Load(host, int(port), token, row), threading.Event()
    thread = threading.Thread(target=load.run, args=(stop,))
    thread.start()
    sys.stdin.read()
    stop.set()
    thread.join()
    print(json.dumps(load.document()))


if __name__ == "__main__":
    main()
