"""Run in a pod's network namespace: makes the calls that stand in its argument and prints who answered.

A call is [protocol, address, port, local address or ""]; an answer what the other side said, or "". With
``dns`` for a protocol the last is a name, and the answer its first IPv4 address.
Only the standard library, so that it starts fast.
"""

import json
import socket
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

SECONDS = 1.5


def look_up(address: str, port: int, name: str) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = labels + b"\0" + struct.pack("!HH", 1, 1)
    with socket.socket(family, socket.SOCK_DGRAM) as call:
        call.settimeout(SECONDS)
        try:
            call.connect((address, port))
            call.send(struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + question)
            answer = call.recv(512)
        except OSError:
            return ""
    if not struct.unpack("!H", answer[6:8])[0]:
        return ""
    return socket.inet_ntoa(answer[12 + len(question) + 12 :][:4])


def ask(protocol: str, address: str, port: int, source: str) -> str:
    if protocol == "dns":
        return look_up(address, port, source)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as call:
        call.settimeout(SECONDS)
        try:
            if source:
                call.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
                call.bind((source, 0))
            call.connect((address, port))
            if protocol == "udp":
                call.send(b"?")
            return call.recv(64).decode()
        except OSError:
            return ""


def main() -> None:
    calls = json.loads(sys.argv[1])
    with ThreadPoolExecutor(32) as pool:
        print(json.dumps(list(pool.map(lambda call: ask(*call), calls))))


if __name__ == "__main__":
    main()
