"""The pools of Python's apps, for `bench/src/pools/with_python.rs`.

Reads an order from each line of its input, and answers it with a line when it is done. BENCH_URL has the server. Called with
`versions`, it says what it has.
"""

import asyncio
import json
import os
import platform
import socket
import ssl
import sys
import traceback
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine

COLUMNS = "SELECT id, author_id, title, pages, rating, note FROM books WHERE id = "
# In seconds: asyncpg's default, and of a pool that is set up.
INACTIVE = 300
IDLE = 240
CONNECT = 10
# For any statement, where that is the only limit that there can be.
CHECK = 1


class Server:
    """Where a URL leads, as these drivers take it: they know no `hostaddr`, and no `sslrootcert` in a URL."""

    def __init__(self, url):
        parts = urlsplit(url)
        parameters = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.host, self.port = parts.hostname, parts.port or 5432
        self.user, self.password = unquote(parts.username), unquote(parts.password)
        self.database = parts.path.lstrip("/")
        if parameters.get("sslmode") == "disable":
            self.tls = False
        else:
            self.tls = ssl.create_default_context(cafile=parameters.get("sslrootcert"))
        if "hostaddr" in parameters:
            resolve(self.host, parameters["hostaddr"])


def resolve(host, address):
    """Has a name resolved to an address, as DNS would."""
    ask = socket.getaddrinfo

    def answer(name, *rest, **more):
        return ask(address if name == host else name, *rest, **more)

    socket.getaddrinfo = answer


class Asyncpg:
    """asyncpg's own pool. It has no check to switch on, and replaces connections that die unless `min_size` is 0."""

    def __init__(self, server, size, patience, is_set_up, scale):
        self.patience = patience
        self.opening = asyncio.Lock()
        self.is_open = False
        self.pool = asyncpg.create_pool(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            ssl=server.tls,
            min_size=0 if is_set_up else size,
            command_timeout=CHECK if is_set_up else None,
            max_size=size,
            max_inactive_connection_lifetime=INACTIVE / scale,
        )

    async def use(self, work):
        async with self.opening:
            if not self.is_open:
                await self.pool
                self.is_open = True
        async with self.pool.acquire(timeout=self.patience) as connection:
            return await work(connection)

    async def look_up(self, book):
        async def work(connection):
            return await connection.fetchrow(COLUMNS + "$1", book)

        return await self.use(work)

    async def close(self):
        self.pool.terminate()


class SqlAlchemy:
    """SQLAlchemy's pool, of asyncpg's connections."""

    def __init__(self, server, size, patience, is_set_up, scale):
        url = sqlalchemy.URL.create(
            "postgresql+asyncpg",
            username=server.user,
            password=server.password,
            host=server.host,
            port=server.port,
            database=server.database,
        )
        arguments = {"ssl": server.tls}
        more = {}
        if is_set_up:
            arguments["timeout"] = CONNECT
            arguments["command_timeout"] = CHECK
            more = {"pool_pre_ping": True, "pool_recycle": IDLE / scale}
        self.engine = create_async_engine(
            url, pool_size=size, max_overflow=0, pool_timeout=patience, connect_args=arguments, **more
        )

    async def use(self, work):
        async with self.engine.connect() as connection:
            return await work(connection)

    async def look_up(self, book):
        async def work(connection):
            found = await connection.execute(sqlalchemy.text(COLUMNS + ":book"), {"book": book})
            return found.one()

        return await self.use(work)

    async def close(self):
        await self.engine.dispose()


KINDS = {"asyncpg": Asyncpg, "SQLAlchemy": SqlAlchemy}


async def main():
    server = Server(os.environ["BENCH_URL"])
    kind = KINDS[sys.argv[1]]
    pools = {}
    tasks = {}

    def answer(number, *words):
        print(number, *words, flush=True)

    async def carry_out(number, work):
        try:
            answer(number, "ok", await work)
        except Exception as error:
            # As the end of what Python would print.
            last = "".join(traceback.format_exception_only(error)).strip()
            answer(number, "failed", json.dumps(last))
        finally:
            tasks.pop(number, None)

    def begin(number, work):
        tasks[number] = asyncio.create_task(carry_out(number, work))

    async def look_up(pool, book):
        # All of the row is read, as Diesel does.
        id, _author, _title, _pages, _rating, _note = await pool.look_up(book)
        return id

    async def close(pool):
        await pool.close()
        return 0

    async def hold(number, pool):
        async def work(_connection):
            answer(number, "ok", 0)
            # Until it is cancelled.
            await asyncio.Event().wait()

        return await pool.use(work)

    orders = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(orders)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await orders.readline():
        number, order, *words = line.decode().split()
        if order == "ready":
            answer(number, "ok", 0)
        elif order == "open":
            size, patience, configuration, scale = words
            is_set_up = configuration == "Serverless"
            pools[number] = kind(server, int(size), float(patience), is_set_up, int(scale))
        elif order == "close":
            begin(number, close(pools.pop(number)))
        elif order == "look_up":
            pool, book = words
            begin(number, look_up(pools[pool], int(book)))
        elif order == "hold":
            begin(number, hold(number, pools[words[0]]))
        elif order == "cancel" and number in tasks:
            tasks[number].cancel()


if sys.argv[1:] == ["versions"]:
    print(f"Python {platform.python_version()}, asyncpg {asyncpg.__version__}, SQLAlchemy {sqlalchemy.__version__}")
else:
    asyncio.run(main())
