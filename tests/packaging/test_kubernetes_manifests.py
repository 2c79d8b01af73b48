"""The manifests for Kubernetes: built by kustomize, valid by the official schemas, closed, their parts fit together."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from appliance.bundle import keys

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "packaging" / "kubernetes"
KUSTOMIZE = shutil.which("kustomize") or str(ROOT / ".cache/kustomize/usr/bin/kustomize")
OVERLAYS = ["overlays/site", "overlays/scale", "rollouts"]
# The oldest that knows image volumes without a switch, and the newest whose schemas are here.
VERSIONS = ["1.33", "1.37"]

Document = dict[str, Any]


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> dict[str, list[Document]]:
    """Every overlay as kustomize builds it, a public key beside it as the page says."""
    folder = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(MANIFESTS, folder)
    _, public = keys.generate_key()
    for overlay in ("overlays/site", "overlays/scale"):
        (folder / overlay / "bundles.pub").write_bytes(public)
    found = {}
    for overlay in OVERLAYS:
        done = subprocess.run([KUSTOMIZE, "build", folder / overlay], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        found[overlay] = list(yaml.safe_load_all(done.stdout))
    return found


def plain() -> list[Document]:
    """Every manifest that no overlay builds."""
    paths = [*(MANIFESTS / "kserve").glob("*.yaml"), *(MANIFESTS / "argocd").glob("*.yaml")]
    return [document for path in sorted(paths) for document in yaml.safe_load_all(path.read_text())]


def custom(document: Document) -> dict[str, Any] | None:
    """Return the schema of a kind that Kubernetes itself does not know."""
    path = MANIFESTS / "schemas" / f"{document['kind']}.json"
    return json.loads(path.read_text()) if path.exists() else None


def one(documents: list[Document], kind: str) -> Document:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def check(document: Document) -> None:
    """Raise unless the official schema takes the document."""
    schema = custom(document)
    if schema is not None:
        jsonschema.Draft202012Validator(schema).validate(document)
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_kustomize_builds_is_valid_by_the_official_schemas(built, overlay):
    kinds = {document["kind"] for document in built[overlay]}
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap", "ServiceAccount"} <= kinds
    for document in built[overlay]:
        check(document)


@pytest.mark.parametrize("document", plain(), ids=lambda document: document["kind"])
def test_other_manifests_are_valid_by_their_projects_schemas(document):
    assert custom(document) is not None
    check(document)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_typing_mistake_would_be_found(built, overlay):
    found = 0
    for document in built[overlay]:
        if "spec" in document:
            with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
                check({**document, "spec": {**document["spec"], "replicaz": 1}})
            found += 1
    assert found >= 4


@pytest.mark.parametrize("kind", ["Rollout", "AnalysisTemplate", "Application", "InferenceService", "ServingRuntime"])
def test_a_schema_covers_all_that_its_manifest_uses(built, kind):
    """What no manifest used when the schema was derived is empty there, and would take anything."""
    document = one([*built["rollouts"], *plain()], kind)
    schema = custom(document)
    assert schema is not None
    assert uncovered(document["spec"], schema["properties"]["spec"], "spec") == []


def uncovered(value: Any, schema: dict[str, Any], place: str) -> list[str]:
    if not schema:
        return [place]
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        return [
            fault
            for name, below in value.items()
            for fault in uncovered(
                below, known.get(name, others if isinstance(others, dict) else {}), f"{place}.{name}"
            )
        ]
    if isinstance(value, list):
        return [fault for item in value for fault in uncovered(item, schema.get("items", {}), f"{place}[]")]
    return []


def test_schemas_are_derived_and_not_written_by_hand(tmp_path):
    """derive.py, given a definition, keeps what is used and the names of the rest."""
    spec = importlib.util.spec_from_file_location("derive", MANIFESTS / "schemas" / "derive.py")
    assert spec is not None
    derive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(derive)  # type: ignore[union-attr]
    whole = {
        "type": "object",
        "description": "long",
        "required": ["a"],
        "properties": {
            "a": {"type": "integer", "minimum": 1},
            "b": {"type": "object", "properties": {"c": {"type": "string"}}},
            "d": {"x-kubernetes-int-or-string": True},
        },
    }
    found = derive.derived(whole, [{"a": 1, "d": "x"}])
    assert found == {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"type": "integer", "minimum": 1}, "b": {}, "d": {"type": ["integer", "string"]}},
        "additionalProperties": False,
    }


def pods(documents: list[Document]) -> list[Document]:
    return [document["spec"]["template"] for document in documents if document["kind"] == "Deployment"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_closed(built, overlay):
    (pod,) = pods(built[overlay])
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["initContainers"] + spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "hostPath" not in str(spec)
    assert "hostNetwork" not in spec


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_variable_of_a_service_becomes_a_setting(built, overlay):
    """Kubernetes would set APPLIANCE_PORT for the Service `appliance`: to the appliance a typing mistake."""
    (pod,) = pods(built[overlay])
    assert pod["spec"]["enableServiceLinks"] is False


def test_kserve_s_pods_are_closed_as_well():
    runtime, service = one(plain(), "ServingRuntime"), one(plain(), "InferenceService")
    (container,) = runtime["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert service["spec"]["predictor"]["enableServiceLinks"] is False
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    named = {one["name"] for one in runtime["spec"]["supportedModelFormats"]}
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] in named


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_select_the_pods(built, overlay):
    documents = built[overlay]
    (pod,) = pods(documents)
    labels = pod["metadata"]["labels"].items()
    selectors = [
        one(documents, "Deployment")["spec"]["selector"]["matchLabels"],
        one(documents, "Service")["spec"]["selector"],
        one(documents, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_volumes_and_ports_that_are_named_are_there(built, overlay):
    (pod,) = pods(built[overlay])
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    configured = {document["metadata"]["name"] for document in built[overlay] if document["kind"] == "ConfigMap"}
    mounts = [
        mount for part in ("initContainers", "containers") for c in pod["spec"][part] for mount in c["volumeMounts"]
    ]
    assert {mount["name"] for mount in mounts} == volumes
    paths = {mount["mountPath"] for mount in mounts}
    assert not any(a != b and a.startswith(f"{b}/") for a in paths for b in paths), "a mount within a read-only mount"
    used = {volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume}
    assert used == configured
    (container,) = pod["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert one(built[overlay], "Service")["spec"]["ports"][0]["targetPort"] in ports
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_a_site_s_pods_reach_nothing_and_a_fleet_s_only_names_and_the_registry(built):
    assert one(built["overlays/site"], "NetworkPolicy")["spec"]["egress"] == []
    ports = {
        port["port"]
        for rule in one(built["overlays/scale"], "NetworkPolicy")["spec"]["egress"]
        for port in rule["ports"]
    }
    assert ports == {53, 443, 5000}


def test_the_autoscaler_alone_states_how_many_replicas_there_are(built):
    for overlay, kind in (("overlays/scale", "Deployment"), ("rollouts", "Rollout")):
        scaler = one(built[overlay], "HorizontalPodAutoscaler")["spec"]
        target = one(built[overlay], kind)
        assert (scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"]) == (
            kind,
            target["metadata"]["name"],
        )
        assert "replicas" not in target["spec"]
        assert scaler["minReplicas"] >= 2


def test_the_canary_is_judged_by_metrics_that_there_are(built):
    known = (ROOT / "docs" / "metrics.md").read_text()
    template = one(built["rollouts"], "AnalysisTemplate")
    queries = [metric["provider"]["prometheus"]["query"] for metric in template["spec"]["metrics"]]
    names = {name for query in queries for name in re.findall(r"\bappliance_[a-z_]+", query)}
    assert names
    for name in names:
        assert f"`{name.removesuffix('_bucket')}`" in known, name
    outcomes = {outcome for query in queries for outcome in re.findall(r'outcome="(\w+)"', query)}
    assert outcomes == {"service_error"}
    given = {argument["name"] for argument in template["spec"]["args"]}
    assert {name for query in queries for name in re.findall(r"\{\{args\.(\w+)\}\}", query)} <= given
    rollout = one(built["rollouts"], "Rollout")
    analyses = [step["analysis"] for step in rollout["spec"]["strategy"]["canary"]["steps"] if "analysis" in step]
    assert len(analyses) == 2
    assert all(analysis["templates"] == [{"templateName": template["metadata"]["name"]}] for analysis in analyses)
    weights = [step["setWeight"] for step in rollout["spec"]["strategy"]["canary"]["steps"] if "setWeight" in step]
    assert weights == sorted(weights)
    assert weights[-1] == 100


def test_the_image_is_that_of_this_version(built):
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    expected = {f"edge-inference-appliance:{version[1]}"}
    for overlay in OVERLAYS:
        (pod,) = pods(built[overlay])
        assert {
            container["image"] for container in pod["spec"]["initContainers"] + pod["spec"]["containers"]
        } == expected
    assert {container["image"] for container in one(plain(), "ServingRuntime")["spec"]["containers"]} == expected
