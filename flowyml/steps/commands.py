"""Commands, in a shell of the worker or in a container."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from flowyml import step
from flowyml.plan.secrets import environment_without_secrets
from flowyml.runtime.lines import Lines
from flowyml.steps.needed import needed

__all__ = ["bash", "docker_run"]

_MOST_KEPT = 20  # lines of a command that failed


@step
def bash(command: str, env: dict[str, str] | None = None, cwd: str | None = None) -> str:
    """Run a command in Bash, and return the last line that it printed.

    Its lines go to the step's log as they come. It has the environment of the step, including secrets by names in
    capitals, and ``env`` in addition. Raises ``RuntimeError`` with the last lines if the command, or any command of a
    pipe in it, fails. Pass values from other steps in ``env``, where no shell interprets them:
    ``bash('load "$FILE"', env=…)``.
    """
    with subprocess.Popen(
        [shutil.which("bash") or "bash", "-o", "pipefail", "-c", command],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, encoding="utf-8", errors="replace", env={**environment_without_secrets(), **(env or {})}, cwd=cwd,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            last = _printed(process.stdout)
            code = process.wait()
        except BaseException:  # the step is stopped: processes of the command end with it
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return _last_line("The command", code, last)


@step
def docker_run(
    image: str,
    command: str | list[str] | None = None,
    env: dict[str, str] | None = None,
    volumes: dict[str, str] | None = None,
    network: str | None = None,
) -> str:
    """Run a container to its end, and return the last line that it printed.

    ``volumes`` maps paths in the container, read-only if they end in ``:ro``, to folders of the worker's machine.
    Docker is found as its own command finds it: by ``DOCKER_HOST`` and so on. The container is removed, even if the
    step is stopped. Raises ``RuntimeError`` with its last lines if it fails. Needs the package ``docker``.
    """
    docker = needed("docker", "docker", "docker_run")
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        raise ConnectionError(
            f"docker_run finds no Docker on this worker: {error}. Set DOCKER_HOST, or run the step where Docker is."
        ) from error
    try:
        container = client.containers.run(
            image, command, detach=True, environment=env or {}, network=network,
            volumes=[f"{host}:{place}" for place, host in _mounts(volumes or {})],
        )  # fmt: skip
        try:
            last = _printed(_lines(container.logs(stream=True, follow=True)))
            code = int(container.wait()["StatusCode"])
        finally:
            container.remove(force=True)
    finally:
        client.close()
    return _last_line(f"Container of {image!r}", code, last)


def _mounts(volumes: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    for place, host in volumes.items():
        if ":" in host:
            raise ValueError(f"volumes: {host!r} is not a folder on the worker's machine.")
        yield place, host


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of an output that arrives in pieces, each with several lines or a part of a character."""
    unread: list[str] = []
    lines = Lines("stdout", lambda _, line: unread.append(line))
    for piece in pieces:
        lines.feed(piece)
        yield from unread
        unread.clear()
    lines.end()
    yield from unread


def _printed(lines: Iterable[str]) -> list[str]:
    """Print lines as they arrive, and return the last ones."""
    last: deque[str] = deque(maxlen=_MOST_KEPT)
    for line in lines:
        text = line.rstrip("\r\n")
        print(text, flush=True)
        last.append(text)
    return list(last)


def _last_line(subject: str, code: int, last: list[str]) -> str:
    if code:
        why = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise RuntimeError("\n".join([f"{subject} {why}. It said:" if last else f"{subject} {why}.", *last]))
    return last[-1] if last else ""
