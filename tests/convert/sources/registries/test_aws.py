"""Models fetched from S3 and SageMaker's model registry, as moto's server speaks them."""

import io
import pickle
import tarfile

import boto3
import pytest

from appliance.bundle import archive
from appliance.errors import ConversionRefused, Misuse, NotFound, NotReady
from convert.sources import check_trust, fetch


@pytest.fixture(scope="module")
def bucket(aws, files, model):
    """The bucket `models`: a skops file, a pickle, and both in an archive; it keeps versions."""
    store = boto3.client("s3")
    store.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    store.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    content = {"model.skops": (files / "model.skops").read_bytes(), "model.pkl": pickle.dumps(model)}
    for key, body in content.items():
        store.put_object(Bucket="models", Key=f"iris/{key}", Body=body)
    store.put_object(Bucket="models", Key="both.tar.gz", Body=packed(content))
    store.put_object(Bucket="models", Key="iris/model.tar.gz", Body=packed({"model.skops": content["model.skops"]}))
    return store


@pytest.fixture(scope="module")
def package(bucket):
    """Register a model package and return its ARN."""
    registry = boto3.client("sagemaker")
    registry.create_model_package_group(ModelPackageGroupName="pumps")

    def package(*data, status="Approved"):
        containers = [{"Image": "image", "ModelDataUrl": url} for url in data]
        answer = registry.create_model_package(
            ModelPackageGroupName="pumps",
            ModelApprovalStatus=status,
            InferenceSpecification={
                "Containers": containers,
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["text/csv"],
            },
        )
        return answer["ModelPackageArn"]

    return package


def packed(content):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, body in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return file.getvalue()


def version_of(arn):
    return arn.rpartition("/")[2]


def test_an_object_becomes_a_bundle_that_names_its_url_and_version(bucket, convert, files, tmp_path):
    ran = convert("s3://models/iris/model.skops", "--sample", files / "sample.csv")
    assert (ran.returncode, ran.stderr) == (0, "")
    origin = archive.open_bundle(tmp_path / "iris-1.0.0.bundle").manifest.provenance
    assert origin.source == "s3://models/iris/model.skops"
    assert origin.run == bucket.head_object(Bucket="models", Key="iris/model.skops")["VersionId"]


def test_a_pickle_in_a_bucket_needs_trust(bucket, tmp_path):
    url, told = "s3://models/iris/model.pkl", []
    fetched = fetch(url, tmp_path)
    with pytest.raises(ConversionRefused, match="--trust"):
        check_trust(fetched, url, ["s3://models-of-others"], told.append)
    check_trust(fetched, url, ["s3://models/iris"], told.append)
    assert told == ["loading model.pkl runs the code in it, with your rights"]


def test_a_model_in_an_archive_is_named_behind_a_hash(bucket, tmp_path):
    with pytest.raises(ConversionRefused, match="holds 2 model files"):
        fetch("s3://models/both.tar.gz", tmp_path)
    (tmp_path / "again").mkdir()
    fetched = fetch("s3://models/both.tar.gz#model.pkl", tmp_path / "again")
    assert (fetched.format, fetched.runs_code) == ("pickle", True)


@pytest.mark.parametrize("url", ["s3://models/absent.skops", "s3://nobody-has-this/model.skops"])
def test_an_absent_object_or_bucket_is_not_found(bucket, tmp_path, url):
    with pytest.raises(NotFound):
        fetch(url, tmp_path)


@pytest.mark.parametrize("url", ["s3://models", "s3://models/", "s3://models/folder/", "s3:models/m.skops"])
def test_a_url_without_an_object_is_misuse(bucket, tmp_path, url):
    with pytest.raises(Misuse):
        fetch(url, tmp_path)


def test_a_store_that_is_away_is_not_ready(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:a-secret@127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(NotReady, match="AWS_ENDPOINT_URL") as caught:
        fetch("s3://models/iris/model.skops", tmp_path)
    assert "127.0.0.1:1" in str(caught.value)
    assert "a-secret" not in str(caught.value)


def test_a_model_package_is_fetched_and_names_its_arn(package, files, tmp_path):
    arn = package("s3://models/iris/model.tar.gz")
    url = f"sagemaker:pumps/{version_of(arn)}"
    fetched = fetch(url, tmp_path)
    assert (fetched.source, fetched.run, fetched.local) == (url, arn, False)
    assert fetched.path.read_bytes() == (files / "model.skops").read_bytes()


def test_a_member_of_a_packages_archive_is_named_behind_a_hash(package, tmp_path):
    arn = package("s3://models/both.tar.gz")
    fetched = fetch(f"sagemaker:pumps/{version_of(arn)}#model.skops", tmp_path)
    assert fetched.format == "skops"


def test_a_rejected_package_is_refused(package, tmp_path):
    arn = package("s3://models/iris/model.tar.gz", status="Rejected")
    with pytest.raises(ConversionRefused, match="Rejected"):
        fetch(f"sagemaker:pumps/{version_of(arn)}", tmp_path)


def test_a_package_of_several_containers_is_refused(package, tmp_path):
    arn = package("s3://models/iris/model.tar.gz", "s3://models/both.tar.gz")
    with pytest.raises(ConversionRefused, match="2 containers"):
        fetch(f"sagemaker:pumps/{version_of(arn)}", tmp_path)


@pytest.mark.parametrize("url", ["sagemaker:pumps/99", "sagemaker:nobody/1"])
def test_an_absent_package_is_not_found(package, tmp_path, url):
    with pytest.raises(NotFound):
        fetch(url, tmp_path)


@pytest.mark.parametrize("url", ["sagemaker:pumps", "sagemaker:pumps/0", "sagemaker:pumps/latest", "sagemaker:/1"])
def test_a_package_url_out_of_form_is_misuse(aws, tmp_path, url):
    with pytest.raises(Misuse, match="sagemaker:pumps/3"):
        fetch(url, tmp_path)
