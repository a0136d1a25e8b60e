"""A real Docker engine for tests: Debian's, started by hand, with a base image that is made here.

No registry is asked. ``docker_engine(tmp)`` is a context manager; inside it ``DOCKER_HOST`` says where the engine is.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.waiting import wait_until

__all__ = ["IMAGE", "can_run", "docker_engine", "same_python"]

ROOT = Path(__file__).resolve().parents[2]
# The default image of components that hold functions by value. This one is Debian's minimal system with its Python.
IMAGE = ("python", f"{sys.version_info[0]}.{sys.version_info[1]}-slim")
BASE = ROOT / ".tools" / "kubeflow-base.tar"
SUITE = "trixie"


def can_run() -> bool:
    """Whether this machine lets us start a Docker engine: as root on Linux, with Debian's packages or apt."""
    return sys.platform == "linux" and os.geteuid() == 0 and all(map(_installed, ("dockerd", "debootstrap")))


def same_python(*folders: str) -> dict[str, Any]:
    """Options that bring folders and this very Python into a container: bytecode runs on no other Python."""
    options: dict[str, Any] = {"network_mode": "none"}
    mounted = {folder: folder for folder in folders}
    if sys.base_prefix == "/usr":  # Debian's; the image has another version of it
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        mounted |= {f"/usr/lib/{version}": f"/usr/lib/{version}", f"/usr/bin/{version}": "/usr/local/bin/python3"}
    else:
        mounted[sys.base_prefix] = sys.base_prefix
        options["environment"] = {"PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin"}
    options["mounts"] = [{"Type": "bind", "Source": source, "Target": target} for source, target in mounted.items()]
    return options


def _installed(program: str) -> bool:
    if shutil.which(program):
        return True
    if not shutil.which("apt-get"):
        return False
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from environment import install_debian
    finally:
        sys.path.pop(0)
    return install_debian({"dockerd": "docker.io"}.get(program, program)) and bool(shutil.which(program))


@contextmanager
def docker_engine() -> Iterator[str]:
    """The engine, with the base image in it."""
    folder = Path(tempfile.mkdtemp(prefix="flowyml-docker-"))
    host = f"unix://{folder}/docker.sock"
    command = ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid",
               "-H", host, "--bridge=none", "--iptables=false", "--ip6tables=false"]  # fmt: skip
    with (folder / "log").open("w") as log:
        engine = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, start_new_session=True)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    try:
        _import_base(folder / "log")
        yield host
    finally:
        os.environ.pop("DOCKER_HOST")
        if before is not None:
            os.environ["DOCKER_HOST"] = before
        engine.terminate()
        try:
            engine.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(engine.pid, signal.SIGKILL)
            engine.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _import_base(log: Path) -> None:
    import docker  # type: ignore[import-untyped]  # ships no types

    try:
        wait_until(lambda: _answers(log.with_name("docker.sock")))
    except TimeoutError:
        raise RuntimeError(f"dockerd did not start:\n{log.read_text()[-2000:]}") from None
    client = docker.from_env()
    try:
        client.api.import_image(str(_base()), repository=IMAGE[0], tag=IMAGE[1])
    finally:
        client.close()


def _answers(path: Path) -> bool:
    """Whether a server listens there. Docker's client leaves its socket open when none does."""
    with socket.socket(socket.AF_UNIX) as end, suppress(OSError):
        end.connect(str(path))
        return True
    return False


def _base() -> Path:
    """Debian's minimal system and Python, made once on a machine; it takes about a minute."""
    if BASE.exists():
        return BASE
    BASE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flowyml-base-") as folder:
        root = Path(folder) / "root"
        include = "python3-minimal,libpython3-stdlib"
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={include}", SUITE, str(root)],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        for unneeded in ("var/cache/apt", "usr/share/doc", "usr/share/locale", "var/lib/apt/lists"):
            with suppress(OSError):
                shutil.rmtree(root / unneeded)
        fresh = BASE.with_suffix(".new")
        with tarfile.open(fresh, "w") as archive:
            archive.add(root, ".")
        fresh.replace(BASE)
    return BASE
