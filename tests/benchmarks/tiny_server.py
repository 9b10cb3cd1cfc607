"""The most trivial single-user server: answers every request with 200 as soon as it can.

Few imports, so that a spawn's time is the hub's and the broker's, not the interpreter's.
"""

import os
import socket

ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n"
    b"X-JupyterHub-Version: " + os.environ.get("TINY_VERSION", "0").encode() + b"\r\n"
    b"Connection: close\r\n\r\n{}"
)


def main() -> None:
    """Serve on the address the hub gave, one short connection after the other."""
    host, port = os.environ["JUPYTERHUB_SERVICE_URL"].split("/")[2].rsplit(":", 1)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((host, int(port)))
    server.listen(64)
    while True:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(ANSWER)


main()
