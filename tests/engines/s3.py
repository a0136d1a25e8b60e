"""S3 for tests: moto's server, which is a fake, on 127.0.0.1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

__all__ = ["fake_s3"]


@contextmanager
def fake_s3(bucket: str) -> Iterator[dict[str, str]]:
    """A server with one empty bucket; gives the environment variables with which every client finds it."""
    boto3 = pytest.importorskip("boto3")  # the oldest releases are tested without it
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    key, secret, region = "tester", "secret-word", "us-east-1"
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=region,
    )
    # fsspec keeps filesystems by their arguments, and one that an earlier server was reached by has the same ones.
    S3FileSystem.clear_instance_cache()
    try:
        client.create_bucket(Bucket=bucket)
        yield {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": region,
        }
    finally:
        S3FileSystem.clear_instance_cache()
        client.close()
        server.stop()
