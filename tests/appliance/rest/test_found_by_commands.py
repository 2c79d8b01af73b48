"""Commands find the service that runs over their state folder, at whatever port it listens."""

import json

from click.testing import CliRunner

from appliance.cli import appliance as command
from appliance.store import running


def test_status_finds_the_service_at_whatever_port(start_service, tmp_path):
    served = start_service(("iris", "1.0.0", "labels"))
    known = {"APPLIANCE_STATE_DIR": str(served.store.state_dir), "APPLIANCE_HTTP_PORT": "1"}
    result = CliRunner().invoke(command, ["status", "--ready", "--json"], env=known)
    assert (result.exit_code, json.loads(result.stdout)["url"]) == (0, f"{served.url}/health/ready")
    assert CliRunner().invoke(command, ["probe", "iris", "--wait", "0"], env=known).exit_code == 0
    elsewhere = known | {"APPLIANCE_STATE_DIR": str(tmp_path / "other")}
    assert CliRunner().invoke(command, ["status", "--ready"], env=elsewhere).exit_code == 1
    assert CliRunner().invoke(command, ["status", "--ready", "--url", served.url], env=elsewhere).exit_code == 0
    wrong = CliRunner().invoke(command, ["probe", "iris", "--wait", "0", "--url", "http://127.0.0.1:1"], env=known)
    assert (wrong.exit_code, "at http://127.0.0.1:1" in wrong.stderr) == (1, True)
    served.service.stop()
    served.thread.join(30)
    assert CliRunner().invoke(command, ["status", "--ready"], env=known).exit_code == 1
    assert running.read(served.store.state_dir) is None
