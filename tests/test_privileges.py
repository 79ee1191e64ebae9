"""Root acts in a store as its owner: traps that the owner lays catch nothing of root's."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsollama.errors import StoreNotWritableError
from dsollama.ollama.names import listed_names
from dsollama.ollama.server import Server
from dsollama.privileges import CALLER, acting, acting_as, acting_as_owner, as_caller, owner_of
from dsollama.testing.loopback_hub import LoopbackHub

from conftest import TERMINUS, Bench, make_repository, public_folder

SERVICE = (4321, 4322)
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter, with a store of the service's and a secret of root's."""
    with public_folder() as top:
        (top / "models").mkdir()
        os.chown(top / "models", *SERVICE)
        (top / "roots").mkdir(mode=0o700)
        (top / "roots" / "secret").write_text("root's alone")
        yield top


def run(bench: Bench, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dsollama", *arguments],
        env=bench.environment() | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        umask=0o077,
    )


def outside(place: Path) -> dict[str, tuple[int, int, bytes]]:
    """What lies beside the store, folders too: mode, owner and bytes."""
    there = (place / "roots", *(place / "roots").rglob("*"))
    return {
        str(path): (
            path.lstat().st_mode,
            path.lstat().st_uid,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in there
    }


def test_the_kernel_refuses_what_the_owner_may_not_do(place: Path) -> None:
    secret = place / "roots" / "secret"
    with acting_as_owner(place / "models"):
        assert acting().uid == SERVICE[0]
        with pytest.raises(PermissionError):
            secret.read_text()
        with as_caller():
            assert secret.read_text() == "root's alone"
        with pytest.raises(PermissionError):
            secret.read_text()
        (place / "models" / "made").touch()
    assert secret.read_text() == "root's alone"
    made = (place / "models" / "made").stat()
    assert (made.st_uid, made.st_gid) == SERVICE


def test_who_owns_a_link_on_the_way_decides(place: Path) -> None:
    (place / "plain").mkdir()
    assert owner_of(place / "plain") is None
    (place / "models" / "to").symlink_to(place / "plain")
    os.lchown(place / "models" / "to", *SERVICE)
    found = owner_of(place / "models" / "to")
    assert found is not None
    assert found.uid == SERVICE[0]


@pytest.mark.parametrize("inner", ["", "blobs"])
def test_a_store_of_roots_that_others_can_change_is_refused(place: Path, inner: str) -> None:
    store = place / "plain"
    (store / "blobs").mkdir(parents=True)
    assert owner_of(store) is None
    (store / inner).chmod(0o777)
    with pytest.raises(StoreNotWritableError, match="every user can change"):
        owner_of(store)
    (store / inner).chmod(0o755)
    os.chown(store / "blobs", *SERVICE)
    with pytest.raises(StoreNotWritableError, match="user 4321 can change"):
        owner_of(store)


@pytest.mark.parametrize("owner", [SERVICE, (0, 0)], ids=["service", "root"])
def test_an_install_is_the_owners_whatever_the_umask(
    owner: tuple[int, int], place: Path, shards: Callable[..., list[Path]]
) -> None:
    store = place / "models"
    os.chown(store, *owner)
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], store, [])
        done = run(bench, "install", "UD-Q2_K_XL", "--yes")
    assert done.returncode == 0, done.stderr
    for path in store.rglob("*"):
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == owner, path
        usual = 0o600 if path.name == "lock" else 0o644
        assert stat.S_IMODE(found.st_mode) == (0o755 if path.is_dir() else usual), path


@pytest.mark.parametrize("name", ["blobs", ".dsollama", "manifests", ".dsollama/tmp"])
def test_a_link_of_the_owners_into_a_folder_of_roots_leads_nowhere(
    name: str, place: Path, shards: Callable[..., list[Path]]
) -> None:
    link = place / "models" / name
    if link.parent != place / "models":
        link.parent.mkdir()
        os.chown(link.parent, *SERVICE)
    link.symlink_to(place / "roots")
    os.lchown(link, *SERVICE)
    before = outside(place)
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], place / "models", [])
        for arguments in (
            ("install", "UD-Q2_K_XL", "--yes"),
            ("list",),
            ("gc", "--delete", "--all", "--yes"),
            ("verify", "--repair"),
        ):
            done = run(bench, *arguments)
            assert "dsollama has a bug" not in done.stderr, done.stderr
            assert "root's alone" not in done.stdout + done.stderr
    assert outside(place) == before


def test_a_private_store_of_roots_is_copied_into_the_services(
    place: Path, shards: Callable[..., list[Path]]
) -> None:
    private = place / "roots" / "models"
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], private, [])
        assert run(bench, "install", "UD-Q2_K_XL", "--yes").returncode == 0
        copied = ("install", "UD-Q2_K_XL", "--yes", "--from-store", str(private))
        done = run(bench, *copied, "--store", str(place / "models"))
    assert done.returncode == 0, done.stderr
    blobs = {path.name for path in (place / "models" / "blobs").iterdir()}
    assert blobs == {path.name for path in (private / "blobs").iterdir()}


def test_an_owner_cannot_have_another_store_read_as_root(
    place: Path, shards: Callable[..., list[Path]]
) -> None:
    other = place / "other"
    other.mkdir()
    os.chown(other, *SERVICE)
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], other, [])
        assert run(bench, "install", "UD-Q2_K_XL", "--yes").returncode == 0
        blob = max((other / "blobs").iterdir(), key=lambda path: path.stat().st_size)
        secret = place / "roots" / "weights"
        secret.write_bytes(blob.read_bytes())
        secret.chmod(0o600)
        blob.unlink()
        blob.symlink_to(secret)
        os.lchown(blob, *SERVICE)
        copied = ("install", "UD-Q2_K_XL", "--yes", "--from-store", str(other))
        done = run(bench, *copied, "--store", str(place / "mine"))
    assert done.returncode not in {0, 1}, done.stderr
    assert not list(place.glob("mine/blobs/*"))


def test_acting_as_somebody_takes_away_roots_groups(place: Path) -> None:
    """root's group is root's: what it may read, the owner of a folder may not have read to him."""
    groups = os.getgroups()
    secret = place / "group"
    secret.write_text("the group's")
    secret.chmod(0o640)
    os.setgroups([0, 77])
    try:
        for group in (0, 77):
            os.chown(secret, 0, group)
            with acting_as_owner(place / "models"), pytest.raises(PermissionError):
                secret.read_text()
            with acting_as(owner_of(place / "models")), pytest.raises(PermissionError):
                secret.read_text()  # as for --from-dir and --from-store
        seen: list[list[int]] = []
        with acting_as_owner(place / "models"), as_caller():
            thread = threading.Thread(target=lambda: seen.append(os.getgroups()))
            thread.start()
            thread.join()
            assert secret.read_text() == "the group's"
        assert [set(each) for each in seen] == [set(CALLER.groups)]
        assert os.getgroups() == [0, 77]
    finally:
        os.setgroups(groups)


@pytest.mark.parametrize("exists", [True, False])
def test_a_store_that_everybody_can_make_a_folder_in_is_refused(exists: bool, place: Path) -> None:
    """A sticky folder keeps what is there: not what is not there yet, such as `blobs`."""
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    store = place / "sticky" if exists else place / "sticky" / "models"
    with pytest.raises(
        StoreNotWritableError, match=f"every user can change {place}/sticky"
    ) as told:
        owner_of(store)
    if exists:
        assert "chmod go-w" in told.value.hint
    else:
        assert f"`mkdir {store}`" in told.value.hint
        store.mkdir()
        assert owner_of(store) is None


def lay_shards(place: Path, shards: list[Path], owner: tuple[int, int] = SERVICE) -> Path:
    """Another's folder of shards, in which the third is a link to a file of root's."""
    folder = place / "theirs"
    folder.mkdir()
    for path in shards:
        shutil.copy(path, folder)
        os.chown(folder / path.name, *owner)
    os.chown(folder, *owner)
    secret = place / "roots" / "weights.gguf"
    (folder / shards[2].name).rename(secret)
    os.chown(secret, 0, 0)
    secret.chmod(0o640)
    (folder / shards[2].name).symlink_to(secret)
    os.lchown(folder / shards[2].name, *owner)
    (place / "roots").chmod(0o711)
    return folder


@pytest.mark.parametrize("offline", [False, True])
def test_from_dir_reads_as_the_owner_of_that_folder(
    offline: bool, place: Path, shards: Callable[..., list[Path]]
) -> None:
    folder = lay_shards(place, shards(3))
    before = outside(place)
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], place / "mine", [])
        options = ("install", "UD-Q2_K_XL", "--yes", "--from-dir", str(folder))
        done = run(bench, *options, **({"HF_HUB_OFFLINE": "1"} if offline else {}))
    assert done.returncode not in {0, 1}, done.stderr
    assert "cannot be read: Permission denied" in done.stderr
    assert outside(place) == before
    assert not list(place.glob("mine/blobs/*"))


def test_consume_deletes_as_the_owner_of_that_folder(
    place: Path, shards: Callable[..., list[Path]]
) -> None:
    folder = lay_shards(place, shards(3))
    (folder / shards(3)[2].name).unlink()
    shutil.copy(shards(3)[2], folder)
    os.chown(folder / shards(3)[2].name, *SERVICE)
    os.chown(place / "models", 4999, 4999)  # another one's than the folder
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], place / "models", [])
        options = ("install", "UD-Q2_K_XL", "--yes", "--from-dir", str(folder), "--consume")
        folder.chmod(0o500)  # he may not delete there himself; root could
        done = run(bench, *options)
        assert "its folder is not writable" in done.stderr, done.stderr
        assert len(list(folder.iterdir())) == 3
        folder.chmod(0o700)
        done = run(bench, *options)
        assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())


def test_from_dir_of_roots_that_everybody_can_write_is_refused(
    place: Path, shards: Callable[..., list[Path]]
) -> None:
    folder = lay_shards(place, shards(3), (0, 0))
    folder.chmod(0o1777)
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        bench = Bench(hub, hub.repositories[TERMINUS], place / "models", [])
        done = run(bench, "install", "UD-Q2_K_XL", "--yes", "--from-dir", str(folder))
    assert done.returncode not in {0, 1}
    assert f"every user can change {folder}" in done.stderr
    assert f"chmod go-w {folder}" in done.stderr


def test_a_shared_cache_of_the_hub_is_not_read_by_root(
    place: Path, shards: Callable[..., list[Path]]
) -> None:
    """huggingface_hub's cache may be somebody else's (sudo -E): a link in it leads root nowhere."""
    with LoopbackHub({TERMINUS: make_repository(shards(3))}) as hub:
        cache = place / "cache" / "hub" / f"models--{TERMINUS.replace('/', '--')}" / "blobs"
        cache.mkdir(parents=True)
        secret = place / "roots" / "weights"
        shutil.copy(shards(3)[0], secret)
        secret.chmod(0o600)
        (place / "roots").chmod(0o711)
        digest = hashlib.sha256(secret.read_bytes()).hexdigest()
        (cache / digest).symlink_to(secret)
        for path in (*cache.parents[:3], cache):
            os.chown(path, *SERVICE)
        bench = Bench(hub, hub.repositories[TERMINUS], place / "models", [])
        plan = ("install", "UD-Q2_K_XL", "--dry-run", "--json")
        found = json.loads(run(bench, *plan, HF_HOME=str(place / "cache")).stdout)
        assert not found["local_files"]
        secret.chmod(0o644)
        (place / "roots").chmod(0o755)
        found = json.loads(run(bench, *plan, HF_HOME=str(place / "cache")).stdout)
        assert found["local_files"]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_an_ollama_by_https_is_asked_with_the_callers_certificates(
    variable: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may lie in a home that the store's owner cannot enter; a folder's are read late."""
    closed = place / "roots"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", *made, *files], cwd=closed, check=True, capture_output=True)
    named = subprocess.check_output(
        ["openssl", "x509", "-hash", "-noout", "-in", closed / "cert.pem"], text=True
    )
    (closed / f"{named.strip()}.0").symlink_to("cert.pem")  # as `openssl rehash` does
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(closed / "cert.pem", closed / "key.pem")

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/api/version": b'{"version": "0.33.0"}', "/api/tags": b'{"models": []}'}
            self.send_response(200)
            self.send_header("Content-Length", str(len(known[self.path])))
            self.end_headers()
            self.wfile.write(known[self.path])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    monkeypatch.setenv(variable, str(closed / "cert.pem" if "FILE" in variable else closed))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"https://127.0.0.1:{server.server_address[1]}"
        with acting_as_owner(place / "models"):
            with pytest.raises(PermissionError):
                (closed / "cert.pem").read_bytes()
            assert Server(address).version() == "0.33.0"
            assert listed_names(address) == set()
        server.shutdown()
