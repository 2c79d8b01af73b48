"""Models in an S3 bucket: `s3://BUCKET/KEY`, a model file or an archive of one (`s3://BUCKET/KEY.tar.gz#MEMBER`).

Address, region and credentials are boto3's own (environment, configuration files, instance role); AWS_ENDPOINT_URL
names another store that speaks S3.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from appliance.errors import ApplianceError, Misuse, NotFound, NotReady
from convert.sources.fetched import Fetched, without_secrets
from convert.sources.unpack import open_model

_ABSENT = ("NoSuchKey", "NoSuchBucket", "404", "NotFound", "ResourceNotFound")


def fetch(url: str, folder: Path) -> Fetched:
    """Return the model of `url`, put into `folder`; its run is the object's version, where the bucket keeps versions.

    Raises NotFound, NotReady when the store does not answer or does not let us in, Misuse for a URL without a key.
    """
    parts = urlsplit(url)
    key = parts.path.lstrip("/")
    if not parts.netloc or not key or key.endswith("/"):
        raise Misuse(f"fetch {url}", "it names no object", "write s3://BUCKET/KEY, the key being a file's")
    path = folder / Path(key).name
    with answers(url):
        entry = boto3.client("s3").get_object(Bucket=parts.netloc, Key=key)
        with path.open("wb") as file:
            shutil.copyfileobj(entry["Body"], file)
    fetched = open_model(path, folder, parts.fragment, url)
    return replace(fetched, run=fetched.run or entry.get("VersionId") or "")


@contextmanager
def answers(url: str) -> Iterator[None]:
    """Turn what boto3 raises into NotFound or NotReady."""
    try:
        yield
    except ClientError as error:
        problem = error.response.get("Error", {})
        found = f"{problem.get('Code', 'error')}: {problem.get('Message', '')}"
        kind: type[ApplianceError] = NotReady
        if problem.get("Code") in _ABSENT or "not found" in found or "does not exist" in found:
            kind = NotFound
        raise kind(f"fetch {url}", found, "check the name, the region and who may read it") from error
    except BotoCoreError as error:
        next_step = "check the credentials, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"
        raise NotReady(f"fetch {url}", without_secrets(str(error)), next_step) from error  # it quotes the endpoint
