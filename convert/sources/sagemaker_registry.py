"""Models in SageMaker's model registry: `sagemaker:GROUP/VERSION`, a version of a model package group.

The package names a `model.tar.gz` in S3 (https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-version.html);
`sagemaker:GROUP/VERSION#MEMBER` picks a file in it.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3

from appliance.errors import ConversionRefused, Misuse, NotFound
from convert.sources import s3_bucket
from convert.sources.fetched import Fetched

_URL = re.compile(r"sagemaker:(?P<group>[A-Za-z0-9][A-Za-z0-9-]{0,62})/(?P<version>[1-9][0-9]*)(?:#(?P<member>.+))?")


def fetch(url: str, folder: Path) -> Fetched:
    """Return the model of a model package, put into `folder`; its run is the package's ARN.

    Raises NotFound, NotReady when AWS does not answer, Misuse for a malformed URL, and ConversionRefused for a package
    that was rejected or is made of several containers.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise Misuse(f"fetch {url}", "it is not sagemaker:GROUP/VERSION", "write it as sagemaker:pumps/3")
    with s3_bucket.answers(url):
        client = boto3.client("sagemaker")
        arn = _arn(client, parts["group"], int(parts["version"]), url)
        package = client.describe_model_package(ModelPackageName=arn)
    data = _data_url(package, url)
    if parts["member"]:
        data += f"#{parts['member']}"
    return replace(s3_bucket.fetch(data, folder), source=url, run=arn)


def _arn(client: Any, group: str, version: int, url: str) -> str:
    for page in client.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group):
        for summary in page["ModelPackageSummaryList"]:
            if summary.get("ModelPackageVersion") == version:
                return str(summary["ModelPackageArn"])
    raise NotFound(f"fetch {url}", "the registry has no such version", "check the group, the version and the region")


def _data_url(package: dict[str, Any], url: str) -> str:
    """Return where the package's model lies."""
    if package.get("ModelApprovalStatus") == "Rejected":
        raise ConversionRefused(f"fetch {url}", "its approval status is Rejected", "choose a version that was approved")
    containers = package.get("InferenceSpecification", {}).get("Containers", [])
    if len(containers) != 1:
        found = f"the package has {len(containers)} containers"
        raise ConversionRefused(f"fetch {url}", found, "choose a package with one model, as a scikit-learn pipeline")
    whole = containers[0].get("ModelDataSource", {}).get("S3DataSource", {})
    data = containers[0].get("ModelDataUrl") or (whole.get("S3Uri") if whole.get("S3DataType") == "S3Object" else None)
    if not str(data).startswith("s3://"):
        raise ConversionRefused(f"fetch {url}", "it names no file in S3", "register the package with a model.tar.gz")
    return str(data)
