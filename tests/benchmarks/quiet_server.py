"""Stands for a hub and for all single-user servers at once: answers whatever it is asked, quickly.

Below ``/strange/`` it answers so that reading it keeps its reader busy: in chunks of one byte, or,
where the number is even, a byte at a time.

``python -m tests.benchmarks.quiet_server``; prints its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

KERNELS = json.dumps(
    [{"id": "k", "execution_state": "idle", "last_activity": "2026-11-23T09:00:00Z"}]
).encode()


CHUNKS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\n[\r\n"
    + 30_000 * b"1\r\n \r\n"
    + b"1\r\n]\r\n0\r\n\r\n"
)


BYTES = KERNELS + 3_000 * b" "


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    for line in head.split("\r\n"):
        if line.lower().startswith("content-length:"):
            await reader.readexactly(int(line.split(":")[1]))
    if " /strange/" in head and "/api/kernels" in head:
        await strangely(writer, int(head.split("/strange/")[1].split("/")[0]))
        return
    body = KERNELS if "/api/kernels" in head else b"[]"
    # No server has the extension that reports activity.
    status = b"200 OK" if "/api/" in head else b"404 Not Found"
    writer.write(
        b"HTTP/1.1 "
        + status
        + b"\r\nContent-Type: application/json\r\nConnection: close\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    writer.close()


async def strangely(writer: asyncio.StreamWriter, number: int) -> None:
    with suppress(ConnectionError):
        if number % 2:
            writer.write(CHUNKS)
        else:
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BYTES)}\r\n\r\n".encode())
            for byte in BYTES:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
        await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=500)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
