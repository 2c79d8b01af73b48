"""What the collection promises before any host is there: clean, complete, truly told, and silent about secrets."""

import importlib.util
import json
import re
import stat
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ANSIBLE = ROOT / "ansible"
ROLES = ("appliance", "bundle", "broker")
PLAYBOOKS = sorted(path.name for path in (ANSIBLE / "playbooks").glob("*.yml"))
SECRETS = {"token", "password", "appliance_secret_files", "broker_key"}


def load(path: Path):
    return yaml.safe_load(path.read_text())


def options(role: str) -> dict:
    """Return a role's variables, of all entry points."""
    specs = load(ANSIBLE / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    return {name: option for spec in specs.values() for name, option in spec["options"].items()}


def tasks() -> list[tuple[str, dict]]:
    """Return (file, task) of every task of the collection, those in blocks too."""
    found, files = [], [*ANSIBLE.glob("roles/*/tasks/*.yml"), *ANSIBLE.glob("playbooks/**/*.yml")]
    files.remove(ANSIBLE / "playbooks" / "vars" / "arguments.yml")
    for file in files:
        open_ = [(file.name, one) for one in load(file)]
        while open_:
            name, one = open_.pop()
            found.append((name, one))
            open_ += [(name, inner) for key in ("block", "rescue", "always", "tasks") for inner in one.get(key, [])]
    return found


@pytest.mark.timeout(900)
def test_ansible_lint_with_profile_production_and_yamllint_find_nothing(run):
    done = run("make", "-f", "ansible/ansible.mk", "ansible-lint")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Profile 'production' was required, and it passed" in done.stdout + done.stderr


def test_no_rule_is_excepted():
    assert set(load(ANSIBLE / ".ansible-lint")) == {"profile", "strict", "offline"}
    for file in ANSIBLE.rglob("*.yml"):
        assert "noqa" not in file.read_text(), file


@pytest.mark.timeout(300)
@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_playbooks_are_sound_with_the_example_inventory(run, playbook):
    done = run(
        "ansible-playbook", "--syntax-check", f"ansible/playbooks/{playbook}", "-i", "ansible/inventory/example.yml"
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_the_archive_holds_what_a_controller_needs_and_nothing_else(collection):
    (version,) = re.findall(r"^version: *(\S+)", (ANSIBLE / "galaxy.yml").read_text(), re.MULTILINE)
    with tarfile.open(ROOT / "dist" / f"inference-appliance-{version}.tar.gz") as archive:
        names = archive.getnames()
    assert {f"playbooks/{name}" for name in PLAYBOOKS} <= set(names)
    assert {f"roles/{role}/meta/argument_specs.yml" for role in ROLES} <= set(names)
    assert not [name for name in names if name.endswith((".mk", ".cfg", ".pyc", "variables.py"))]
    assert (collection / "plugins/modules/model.py").is_file()


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_typed_and_told_and_begins_with_its_role(role):
    for name, option in options(role).items():
        assert name.startswith(f"{role}_")
        assert option["type"]
        assert option["description"]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role):
    defaults = load(ANSIBLE / "roles" / role / "defaults" / "main.yml")
    told = options(role)
    assert set(defaults) == set(told)
    for name, value in defaults.items():
        if "default" in told[name]:
            assert value == told[name]["default"], name
        else:
            assert "{{" in str(value), name


def test_every_variable_that_a_playbook_is_given_is_typed_and_told():
    arguments = load(ANSIBLE / "playbooks" / "vars" / "arguments.yml")["appliance__playbooks"]
    assert {f"{name}.yml" for name in arguments} == set(PLAYBOOKS)
    roles = {name for role in ROLES for name in options(role)}
    for name, given in arguments.items():
        text = (ANSIBLE / "playbooks" / f"{name}.yml").read_text()
        asked = set(re.findall(r"\b((?!ansible_)[a-z]+_(?!_)\w+) \| default\(", text)) - roles
        asked |= {one for one, option in given.items() if option.get("required") and one in text}
        assert asked <= set(given), name
        assert set(given) <= asked | {"appliance_become"}, name
        assert all(option["type"] and option["description"] for option in given.values()), name


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("playbook", "wrong"),
    [
        ("rollout", "appliance_only_canary=some"),
        ("rollback", "rollback_program=perhaps"),
        ("status", "appliance_become=so"),
        ("score", "appliance_score_bad_rows=drop"),
    ],
)
def test_a_playbook_that_is_given_the_wrong_kind_stops_before_any_host(run, playbook, wrong):
    done = run("ansible-playbook", f"ansible/playbooks/{playbook}.yml", "-i", "192.0.2.1,", "-e", wrong)
    assert done.returncode == 2, done.stdout + done.stderr
    assert wrong.partition("=")[0] in done.stdout + done.stderr
    assert "192.0.2.1" not in done.stdout.partition("PLAY RECAP")[2]


def test_status_writes_the_table_the_file_and_the_page_where_told(run, tmp_path):
    receipts = tmp_path / "receipts"
    receipts.mkdir()
    receipt = {"host": "mine", "time": "2026-02-03T04:05:06+00:00", "appliance": "1.0.0", "models": [],
               "service": {"running": True, "ready": True}}  # fmt: skip
    (receipts / "mine.json").write_text(json.dumps(receipt))
    inventory = tmp_path / "inventory"
    inventory.write_text("gone ansible_host=127.0.0.1 ansible_port=1\n")
    given = {"receipts": receipts, "status_file": tmp_path / "f.json", "status_page": tmp_path / "f.html"}
    told = [word for name, value in given.items() for word in ("-e", f"appliance_{name}={value}")]
    done = run("ansible-playbook", "ansible/playbooks/status.yml", "-i", inventory, *told)
    assert done.returncode in (0, 4), done.stdout + done.stderr  # 4: a host is out of reach
    hosts = json.loads((tmp_path / "f.json").read_text())["hosts"]
    assert [(one["host"], one["reachable"]) for one in hosts] == [("gone", False), ("mine", "receipt")]
    page = (tmp_path / "f.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["hosts"] == hosts
    assert stat.S_IMODE((tmp_path / "f.html").stat().st_mode) == 0o600
    assert "mine" in done.stdout


def test_the_page_of_variables_is_what_the_roles_say():
    spec = importlib.util.spec_from_file_location("variables", ANSIBLE / "variables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "ansible-variables.md").read_text() == module.page(), "make ansible-docs"


def test_only_ansibles_own_modules_and_ours_are_used_by_their_full_names():
    modules = {key for _, task in tasks() for key in task if "." in key}
    assert {name.rsplit(".", 1)[0] for name in modules} == {"ansible.builtin", "inference.appliance"}, modules


def test_no_task_that_writes_a_secret_may_show_it():
    secret = re.compile(r"tokens\.j2|users\.j2|content': '{{ item\.value }}|content': '{{ broker_key }}")
    writing = [
        (file, task) for file, task in tasks() if secret.search(str({k: v for k, v in task.items() if "." in k}))
    ]
    assert len(writing) == 4
    for file, task in writing:
        assert task["no_log"] is True, (file, task["name"])
        assert task["diff"] is False, (file, task["name"])


@pytest.mark.parametrize("role", ["appliance", "broker"])
def test_secrets_are_marked_as_such_in_the_argument_specs(role):
    open_, found = list(options(role).items()), set()
    while open_:
        name, option = open_.pop()
        open_ += list(option.get("options", {}).items())
        if name in SECRETS:
            assert option.get("no_log") is True, name
            found.add(name)
    assert found == ({"token", "appliance_secret_files"} if role == "appliance" else {"password", "broker_key"})


def test_ssh_notices_a_cut_cable():
    configuration = (ANSIBLE / "ansible.cfg").read_text()
    assert "ServerAliveInterval=3" in configuration
    assert "ServerAliveCountMax=3" in configuration
