"""Unix sockets: who may connect, what is in the way, and paths that are too long."""

import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector, web

from envelock_service.sockets import Address, SocketError, bind, connect, peer_uid, unbind


@pytest.fixture
def far(tmp_path: Path) -> Path:
    """A path longer than a socket address holds."""
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    return folder / "s.sock"


def test_a_bound_socket_is_the_owners_alone(tmp_path):
    """Mode 0600 from the first moment, whatever the umask."""
    before = os.umask(0)
    bound = bind(tmp_path / "run" / "s.sock")
    os.umask(before)
    mode = (tmp_path / "run" / "s.sock").stat().st_mode
    unbind(bound, tmp_path / "run" / "s.sock")

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert not (tmp_path / "run" / "s.sock").exists()


def test_the_kernel_says_who_connected(tmp_path):
    """The user id of the other end is this process's own here."""
    bound = bind(tmp_path / "s")
    client = connect(tmp_path / "s", 1)
    bound.setblocking(True)  # noqa: FBT003 - the name of the method says it
    served, _ = bound.accept()

    assert peer_uid(served) == peer_uid(client) == os.getuid()
    for one in (served, client, bound):
        one.close()


def test_a_dead_server_is_replaced_and_a_living_one_is_not(tmp_path):
    """A file that nobody answers at is removed; one that answers stays."""
    bind(tmp_path / "s").close()  # the file stays behind
    bound = bind(tmp_path / "s")

    with pytest.raises(SocketError, match="another server answers"):
        bind(tmp_path / "s")
    unbind(bound, tmp_path / "s")


def test_something_else_in_the_way_is_left_alone(tmp_path):
    """A file that is no socket is not removed."""
    (tmp_path / "s").write_text("precious")

    with pytest.raises(SocketError, match="not a socket"):
        bind(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"


def test_nobody_there_is_said(tmp_path):
    """A missing socket, and one that nobody serves."""
    with pytest.raises(SocketError) as caught:
        connect(tmp_path / "s", 1)
    bind(tmp_path / "t").close()
    with pytest.raises(SocketError):
        connect(tmp_path / "t", 1)

    assert caught.value.exit_code == 5
    assert caught.value.hint


def test_long_paths_are_bound_and_reached(far):
    """A path of any length works for server and client."""
    bound = bind(far)
    bound.setblocking(True)  # noqa: FBT003 - the name of the method says it

    def serve() -> None:
        with bound.accept()[0] as served:
            served.sendall(b"hello")

    thread = threading.Thread(target=serve)
    thread.start()
    client = connect(far, 2)

    assert client.recv(5) == b"hello"
    thread.join()
    client.close()
    unbind(bound, far)


def test_a_name_that_fits_nowhere_is_refused(tmp_path):
    """The name alone must fit; so must the folder exist."""
    with pytest.raises(SocketError, match="too long"):
        Address(tmp_path / ("x" * 120))
    with pytest.raises(SocketError):
        Address(tmp_path / ("d" * 120) / "s")


def test_descriptors_are_given_back(far):
    """Binding, connecting and failing leak nothing."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        bound = bind(far)
        connect(far, 1).close()
        unbind(bound, far)
        with pytest.raises(SocketError):
            connect(far, 1)

    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_aiohttp_takes_both_ends(far):
    """A bound socket serves a site, and an address is a connector's path."""

    async def hello(_: web.Request) -> web.Response:
        """Answer with a greeting."""
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    bound = bind(far)
    await web.SockSite(runner, bound).start()
    address = Address(far)
    async with (
        ClientSession(connector=UnixConnector(address.text)) as session,
        session.get("http://x/") as reply,
    ):
        text = await reply.text()
    await runner.cleanup()
    address.close()

    assert text == "hello"
    assert isinstance(bound, socket.socket)
