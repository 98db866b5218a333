"""Run in a pod's network namespace, as a process of its node: calls by HTTP and prints the answers.

The argument is [address, port, headers, how often]; an answer [status, body, headers], or null for none.
Only the standard library, so that it starts fast.
"""

import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor

SECONDS = 8.0


def call(address: str, port: int, headers: dict[str, str]) -> list | None:
    connection = http.client.HTTPConnection(address, port, timeout=SECONDS)
    try:
        connection.request("GET", "/", headers={"Host": "store", **headers})
        answer = connection.getresponse()
        return [answer.status, answer.read().decode(), dict(answer.getheaders())]
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def main() -> None:
    address, port, headers, times = json.loads(sys.argv[1])
    with ThreadPoolExecutor(4) as pool:
        print(json.dumps(list(pool.map(lambda _: call(address, port, headers), range(times)))))


if __name__ == "__main__":
    main()
