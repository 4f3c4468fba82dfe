"""The engine container's health check: ready means that a real completion came back.

Until the first success every check asks for one token. From then on it asks `/health` (is the
engine process alive?), because a check that generates tokens would add requests to the
measurements, and would call an engine sick that is only busy. Standard library only: it runs in
the engine's image.
"""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

BASE_URL = "http://127.0.0.1:8000"
ANSWERED_ONCE = Path("/tmp/engine-answered")
TIMEOUT_S = 25


def complete_one_token() -> None:
    """Generate one token with the first model served; raises when anything but a token comes."""
    with urllib.request.urlopen(f"{BASE_URL}/v1/models", timeout=TIMEOUT_S) as answer:
        model = json.load(answer)["data"][0]["id"]
    body = {"model": model, "prompt": "1", "max_tokens": 1, "temperature": 0}
    request = urllib.request.Request(
        f"{BASE_URL}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        if json.load(answer)["usage"]["completion_tokens"] != 1:
            raise ValueError("the completion holds no token")


def alive() -> None:
    """Raises when the engine process behind the API server is gone."""
    urllib.request.urlopen(f"{BASE_URL}/health", timeout=TIMEOUT_S).close()


def main() -> int:
    try:
        if ANSWERED_ONCE.exists():
            alive()
        else:
            complete_one_token()
            ANSWERED_ONCE.touch()
    except (OSError, ValueError, KeyError, IndexError) as error:
        print(f"not ready: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
