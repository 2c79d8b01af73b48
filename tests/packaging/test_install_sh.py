"""install.sh against a small kit whose program is a script, in a system tree of its own (--root)."""

import os
import platform
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.bundle import keys
from tests.packaging.kits import PACKAGING, PRIVATE, PUBLIC, build_kit, write_sums

OTHER = keys.generate_key()[1]
# What install.sh changes the disk with: the power goes before each of these is run.
STEPS = ("mkdir", "rm", "mv", "ln", "cp", "cat", "chmod", "tar", "sync", "rmdir")

Make = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def kits(tmp_path_factory) -> Make:
    """Return a function that makes a kit: make(version, signed=False, arch=..., glibc=...), each once."""
    made: dict[tuple[object, ...], Path] = {}

    def make(
        version: str,
        *,
        signed: bool = False,
        arch: str = platform.machine(),
        glibc: str = "2.28",
        as_shipped: bool = False,
    ) -> Path:
        asked = (version, signed, arch, glibc, as_shipped)
        if asked not in made:
            made[asked] = build_kit(tmp_path_factory.mktemp("kits"), version, signed, arch, glibc, as_shipped)
        return made[asked]

    return make


@pytest.fixture
def system(tmp_path) -> Path:
    """An empty system tree."""
    path = tmp_path / "system"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch) -> None:
    """Let what a killed install.sh leaves lie with the test's own files."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TEST_TMPDIR", str(tmp_path / "scratch"))


@pytest.fixture
def run(system) -> Run:
    """Run a kit's install.sh on the system tree."""

    def call(kit: Path, *options: object, path: str = "") -> subprocess.CompletedProcess[str]:
        line = ["sh", kit / "install.sh", "--root", system, *options]
        environment = os.environ | ({"TEST_PATH": path} if path else {})
        return subprocess.run(
            [str(part) for part in line], env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    return call


def installed(system: Path) -> str:
    """Return what the installed program says; it must be whole."""
    current = system / "opt" / "appliance" / "current"
    subprocess.run(["sha256sum", "--quiet", "-c", "FILES.sha256"], cwd=current, check=True)
    said = subprocess.run([current / "program" / "appliance"], capture_output=True, text=True, check=True).stdout
    return said.split()[-1]


def versions(system: Path) -> list[str]:
    return sorted(path.name for path in (system / "opt" / "appliance" / "versions").iterdir())


def snapshot(tree: Path) -> dict[str, tuple[int, bytes | str]]:
    """Return {path: (inode, content or link)} of a tree."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(tree.rglob("*")):
        content: bytes | str = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(tree))] = (path.lstat().st_ino, content)
    return found


def test_kit_installs_program_unit_configuration_and_command(run, kits, system):
    done = run(kits("1.0.0"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert installed(system) == "1.0.0"
    unit = (system / "etc/systemd/system/appliance.service").read_text()
    assert "ExecStart=/opt/appliance/current/program/appliance serve" in unit
    assert "@PREFIX@" not in unit
    assert (system / "etc/systemd/system/multi-user.target.wants/appliance.service").is_symlink()
    assert "[http]" in (system / "etc/appliance/appliance.toml").read_text()
    assert os.access(system / "usr/local/bin/appliance", os.X_OK)
    assert (system / "var/lib/appliance").is_dir()
    assert (system / "etc/sysusers.d/appliance.conf").read_text().startswith("u appliance ")


def test_units_that_pull_and_score_lie_there_and_nobody_starts_them(run, kits, system):
    assert run(kits("1.0.0"), "--prefix", "/srv/plant").returncode == 0
    units = system / "etc/systemd/system"
    assert "ExecStart=/srv/plant/current/program/appliance pull" in (units / "appliance-pull.service").read_text()
    assert "/srv/plant/current/program/appliance\n" in (units / "appliance-score@.service").read_text()
    assert "OnCalendar=" in (units / "appliance-score@.timer").read_text()
    assert "OnUnitInactiveSec=" in (units / "appliance-pull.timer").read_text()
    assert [path.name for path in units.glob("*.wants/*")] == ["appliance.service"]
    assert run(kits("1.0.0"), "--prefix", "/srv/plant", "--uninstall").returncode == 0
    assert [path.name for path in units.iterdir() if path.is_file()] == []


def test_check_says_every_line_and_changes_nothing(run, kits, system):
    done = run(kits("1.0.0"), "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    for check in ("user", "processor", "glibc", "program mount", "disk", "checksums", "signature"):
        assert f" {check}" in done.stdout
    assert snapshot(system) == {}


def test_second_run_changes_nothing(run, kits, system):
    assert run(kits("1.0.0")).returncode == 0
    before = snapshot(system)
    again = run(kits("1.0.0"))
    assert again.returncode == 0
    after = snapshot(system)
    assert before.keys() == after.keys()
    assert {name for name in after if before[name][1] != after[name][1]} == set()


def test_upgrade_and_downgrade_keep_the_last_two_and_the_configuration(run, kits, system):
    assert run(kits("1.0.0")).returncode == 0
    (system / "etc/appliance/appliance.toml").write_text("[http]\nport = 9000\n")
    for version, kept in (
        ("1.1.0", ["1.0.0", "1.1.0"]),
        ("1.2.0", ["1.1.0", "1.2.0"]),
        ("1.1.0", ["1.1.0", "1.2.0"]),
        ("1.0.0", ["1.0.0", "1.1.0"]),
    ):
        assert run(kits(version)).returncode == 0
        assert installed(system) == version
        assert versions(system) == kept
    assert (system / "etc/appliance/appliance.toml").read_text() == "[http]\nport = 9000\n"


def test_rollback_swaps_the_two_versions_without_a_kit(run, kits, system):
    assert run(kits("1.0.0"), "--rollback").returncode == 1
    assert run(kits("1.0.0")).returncode == 0
    assert run(kits("1.0.0"), "--rollback").returncode == 1
    assert run(kits("1.1.0")).returncode == 0
    own = system / "opt/appliance/current"
    for version in ("1.0.0", "1.1.0"):
        assert run(own, "--rollback").returncode == 0
        assert installed(system) == version


def test_another_build_of_the_same_version_is_put_beside_the_one_that_runs(run, kits, system):
    assert run(kits("1.0.0")).returncode == 0
    assert run(kits("1.0.0", glibc="2.27")).returncode == 0
    assert versions(system) == ["1.0.0", "1.0.0.2"]
    assert (system / "opt/appliance/current").readlink() == Path("versions/1.0.0.2")


def test_damaged_installation_is_repaired_by_the_same_kit(run, kits, system):
    assert run(kits("1.0.0")).returncode == 0
    (system / "opt/appliance/current/program/_internal/lib.so.1").write_text("rubbish")
    assert run(kits("1.0.0")).returncode == 0
    assert installed(system) == "1.0.0"


def test_uninstall_keeps_models_and_configuration_until_purged(run, kits, system):
    assert run(kits("1.0.0")).returncode == 0
    (system / "var/lib/appliance/models").mkdir()
    assert run(kits("1.0.0"), "--uninstall").returncode == 0
    assert not (system / "opt/appliance").exists()
    assert not (system / "usr/local/bin/appliance").exists()
    assert not list((system / "etc/systemd/system").rglob("appliance*"))
    assert (system / "var/lib/appliance/models").exists()
    assert (system / "etc/appliance/appliance.toml").exists()
    assert run(kits("1.0.0"), "--uninstall", "--purge").returncode == 0
    assert not (system / "var/lib/appliance").exists()
    assert not (system / "etc/appliance").exists()


def test_installed_copy_can_uninstall_itself(run, kits, system):
    assert run(kits("1.0.0")).returncode == 0
    assert run(system / "opt/appliance/current", "--uninstall").returncode == 0
    assert not (system / "opt/appliance").exists()


def test_program_goes_below_another_prefix(run, kits, system):
    assert run(kits("1.0.0"), "--prefix", "/srv/plant/appliance").returncode == 0
    assert (system / "srv/plant/appliance/current/program/appliance").exists()
    assert "/srv/plant/appliance/current/program" in (system / "etc/systemd/system/appliance.service").read_text()
    assert "/srv/plant/appliance/current/program" in (system / "usr/local/bin/appliance").read_text()


def test_command_of_something_else_stays(run, kits, system):
    (system / "usr/local/bin").mkdir(parents=True)
    (system / "usr/local/bin/appliance").write_text("#!/bin/sh\n")
    done = run(kits("1.0.0"))
    assert done.returncode == 0
    assert "belongs to something else" in done.stdout
    assert (system / "usr/local/bin/appliance").read_text() == "#!/bin/sh\n"


def test_kit_on_a_read_only_stick_without_modes_and_times_installs(run, kits, system, tmp_path):
    stick = tmp_path / "stick"
    shutil.copytree(kits("1.0.0"), stick, copy_function=shutil.copyfile)
    for path in stick.iterdir():
        path.chmod(0o444)
    stick.chmod(0o555)
    assert run(stick).returncode == 0
    assert installed(system) == "1.0.0"


def broken_kit(kit: Path, where: Path, how: str) -> Path:
    copy = where / "broken"
    shutil.copytree(kit, copy)
    if how == "flipped byte":
        content = bytearray((copy / "program.tar").read_bytes())
        content[700] ^= 1
        (copy / "program.tar").write_bytes(content)
    elif how == "missing file":
        (copy / "appliance.service").unlink()
    elif how == "missing program":
        (copy / "program.tar").unlink()
    elif how == "added file":
        (copy / "bundles").mkdir()
        (copy / "bundles" / "evil-1.0.0.bundle").write_bytes(b"")
    elif how == "link":
        (copy / "more").symlink_to("/etc/passwd")
    elif how == "no sums":
        (copy / "SHA256SUMS").unlink()
    elif how == "sums made again":
        (copy / "README.txt").write_text("other\n")
        write_sums(
            copy,
            "SHA256SUMS",
            sorted(one for one in copy.iterdir() if one.name not in ("SHA256SUMS", "model.sig")),
            copy,
        )
    return copy


@pytest.mark.parametrize("how", ["flipped byte", "missing file", "missing program", "added file", "link", "no sums"])
def test_broken_kit_is_refused_and_the_running_version_stays(run, kits, system, tmp_path, how):
    assert run(kits("1.0.0")).returncode == 0
    before = snapshot(system)
    done = run(broken_kit(kits("1.1.0"), tmp_path, how))
    assert done.returncode == 3
    assert "fail " in done.stdout
    assert "nothing was changed" in done.stderr
    assert snapshot(system) == before


@pytest.mark.parametrize(
    ("kit", "said"),
    [({"arch": "riscv64"}, "this kit is for riscv64"), ({"glibc": "2.99"}, "this kit needs 2.99")],
)
def test_kit_for_another_machine_is_refused(run, kits, system, kit, said):
    done = run(kits("1.0.0", **kit))
    assert done.returncode == 3
    assert said in done.stdout
    assert snapshot(system) == {}


@pytest.fixture
def pub(tmp_path) -> Path:
    path = tmp_path / "plant.pub"
    path.write_bytes(PUBLIC)
    return path


@pytest.fixture
def other_pub(tmp_path) -> Path:
    path = tmp_path / "other.pub"
    path.write_bytes(OTHER)
    return path


def test_key_is_checked_kept_and_needed_from_then_on(run, kits, system, pub):
    done = run(kits("1.0.0", signed=True), "--key", pub)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (system / "etc/appliance/kit.pub").read_bytes() == PUBLIC
    refused = run(kits("1.1.0"))
    assert refused.returncode == 3
    assert "the kit is not signed" in refused.stdout
    assert run(kits("1.1.0", signed=True)).returncode == 0
    assert installed(system) == "1.1.0"


def test_file_of_several_keys_is_read_whole_and_nothing_else_may_be_in_it(run, kits, pub, other_pub, tmp_path):
    kit, both = kits("1.0.0", signed=True), tmp_path / "both.pub"
    for text, code in (
        (other_pub.read_text() + pub.read_text(), 0),
        (other_pub.read_text() * 2, 3),
        (pub.read_text() + "beside\n", 3),
        ("", 3),
    ):
        both.write_text(text)
        assert run(kit, "--key", both).returncode == code, text


def test_kit_signed_by_another_key_is_refused(run, kits, system, other_pub):
    done = run(kits("1.0.0", signed=True), "--key", other_pub)
    assert done.returncode == 3
    assert "altered afterwards" in done.stdout
    assert snapshot(system) == {}


def test_altered_kit_with_new_checksums_is_refused_by_its_signature(run, kits, pub, tmp_path):
    done = run(broken_kit(kits("1.0.0", signed=True), tmp_path, "sums made again"), "--key", pub)
    assert done.returncode == 3
    assert "altered afterwards" in done.stdout


def test_signature_of_another_kit_is_refused(run, kits, pub, tmp_path):
    copy = broken_kit(kits("1.0.0", signed=True), tmp_path, "")
    shutil.copy(kits("1.1.0", signed=True) / "model.sig", copy)
    assert run(copy, "--key", pub).returncode == 3


def test_signature_of_the_official_tool_is_accepted(run, kits, pub, tmp_path):
    copy = broken_kit(kits("1.0.0"), tmp_path, "")
    (tmp_path / "key").write_bytes(PRIVATE)
    line = ["model_signing", "sign", "key", "--private_key", tmp_path / "key", "--signature", copy / "model.sig", copy]
    tool = Path(os.sys.executable).parent
    subprocess.run([str(tool / line[0]), *map(str, line[1:])], check=True, capture_output=True)
    done = run(copy, "--key", pub)
    assert done.returncode == 0, done.stdout


def without(tmp_path: Path, *absent: str) -> str:
    """Return a PATH with everything but the commands in `absent`."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for place in reversed(os.environ["PATH"].split(":")):
        for path in Path(place).glob("*") if Path(place).is_dir() else ():
            link = commands / path.name
            if path.name not in absent:
                link.unlink(missing_ok=True)
                link.symlink_to(path)
    return str(commands)


def test_without_openssl_the_installed_program_checks_and_a_first_kit_never_vouches_for_itself(
    run, kits, system, pub, tmp_path
):
    bare = without(tmp_path, "openssl")
    first = run(kits("1.0.0", signed=True), "--key", pub, path=bare)
    assert first.returncode == 3
    assert "nothing here can check it" in first.stdout
    assert run(kits("1.0.0", signed=True), "--key", pub).returncode == 0
    program = system / "opt/appliance/current/program/appliance"
    program.write_text('#!/bin/sh\nexec "$REAL" "$@"\n')
    os.environ["REAL"] = str(Path(os.sys.executable).parent / "appliance")
    try:
        assert run(kits("1.1.0", signed=True), path=bare).returncode == 0
        assert installed(system) == "1.1.0"
    finally:
        del os.environ["REAL"]


@pytest.mark.parametrize(
    "options",
    [("--purge",), ("--prefix", "relative"), ("--prefix", "/a b"), ("--prefix",), ("--key", "/nowhere"), ("--what",)],
)
def test_misuse_is_told_and_changes_nothing(run, kits, system, options):
    done = run(kits("1.0.0"), *options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: install.sh\nfound: ")
    assert snapshot(system) == {}


def test_names_of_others_reach_the_terminal_without_controls(run, kits, tmp_path):
    kit = tmp_path / "kit"
    shutil.copytree(kits("1.0.0"), kit)
    (kit / "a\x1b[2J\u202e\x9b\nnext:  run me").touch()
    strange = run(kit)
    misused = run(kits("1.0.0"), "--\x1b[2J\u202e")
    assert (strange.returncode, misused.returncode) == (3, 2)
    for said in (strange.stdout + strange.stderr, misused.stdout + misused.stderr):
        assert r"\x1b[2J" in said
        assert said.isascii()
        assert said.replace("\n", "").isprintable()
        assert "\nnext:  run me" not in said


def test_second_installer_at_the_same_time_is_told_to_wait(run, kits, system):
    assert run(kits("1.0.0")).returncode == 0
    holder = subprocess.Popen(
        ["flock", str(system / "opt/appliance/.lock"), "sh", "-c", "echo held; read -r line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    done = run(kits("1.1.0"))
    holder.communicate("\n", timeout=30)
    assert done.returncode == 1
    assert "another install.sh" in done.stderr
    assert installed(system) == "1.0.0"


@pytest.fixture
def power(tmp_path, monkeypatch) -> Callable[[int], None]:
    """Commands that count themselves, and kill install.sh and all it started before the step that is named."""
    commands = tmp_path / "steps"
    commands.mkdir()
    counter = tmp_path / "counter"
    for name in STEPS:
        (commands / name).write_text(
            f'#!/bin/sh\nread -r step < "{counter}"\nstep=$((step + 1))\necho $step > "{counter}"\n'
            "if [ $step = $CUT_AT ]; then kill -KILL 0; fi\n"
            # Killing keeps what the kernel holds: flushing would only take time here.
            f'exec {"true" if name == "sync" else shutil.which(name)} "$@"\n'
        )
        (commands / name).chmod(0o755)
    path = os.environ["PATH"]

    def cut(step: int) -> None:
        counter.write_text("0\n")
        monkeypatch.setenv("CUT_AT", str(step))
        monkeypatch.setenv("TEST_PATH", f"{commands}:{path}" if step else path)

    return cut


def start(kit: Path, system: Path, *options: str) -> int:
    """Run install.sh in a process group of its own, so that it can be killed whole; return its exit code."""
    line = ["sh", str(kit / "install.sh"), "--root", str(system), *options]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    return process.wait(timeout=60)


def cut_at_every_step(power, before: Callable[[], Path], kit: Path, *options: str) -> int:
    """Cut the power before every step of a run on a fresh tree from `before`, which looks at each afterwards."""
    step = 0
    while True:
        step += 1
        power(0)
        system = before()
        power(step)
        code = start(kit, system, *options)
        power(0)
        if code != -signal.SIGKILL:
            assert code == 0
            return step - 1
        hold_promise(system)
        assert start(kit, system, *options) == 0


def hold_promise(system: Path) -> None:
    """Hold what must be true after every interruption: a version that is named is whole, or none is named."""
    if (system / "opt/appliance/current").is_symlink():
        assert installed(system) in ("1.0.0", "1.1.0")
        if (system / "etc/systemd/system/appliance.service").exists():
            assert "current/program/appliance serve" in (system / "etc/systemd/system/appliance.service").read_text()


def test_upgrade_interrupted_anywhere_leaves_the_old_or_the_new_version_whole(power, kits, tmp_path):
    template = tmp_path / "template"
    template.mkdir()
    assert start(kits("1.0.0"), template) == 0
    trees = []

    def before() -> Path:
        trees.append(tmp_path / f"tree{len(trees)}")
        shutil.copytree(template, trees[-1], symlinks=True)
        return trees[-1]

    steps = cut_at_every_step(power, before, kits("1.1.0"))
    assert steps > 20
    for tree in trees:
        assert installed(tree) == "1.1.0"
        assert versions(tree) == ["1.0.0", "1.1.0"]
        assert not [path for path in tree.rglob("*") if ".new." in path.name or ".partial" in path.name]


def test_first_installation_interrupted_again_and_again_goes_on_where_it_was(power, kits, system):
    step, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        step += 1
        power(step)
        code = start(kits("1.0.0"), system)
        power(0)
        hold_promise(system)
    assert code == 0
    assert step > 20
    assert installed(system) == "1.0.0"
    assert versions(system) == ["1.0.0"]


def test_uninstall_interrupted_anywhere_is_completed_by_the_next_run(power, kits, tmp_path):
    template = tmp_path / "template"
    template.mkdir()
    assert start(kits("1.0.0"), template) == 0
    trees = []

    def before() -> Path:
        trees.append(tmp_path / f"tree{len(trees)}")
        shutil.copytree(template, trees[-1], symlinks=True)
        return trees[-1]

    assert cut_at_every_step(power, before, kits("1.0.0"), "--uninstall") > 3
    for tree in trees:
        assert not (tree / "opt/appliance").exists()
        assert (tree / "var/lib/appliance").exists()


def test_scripts_are_posix_and_pass_the_shell_of_debian():
    for path in [*PACKAGING.rglob("*.sh")]:
        if path.read_text().startswith("#!/bin/sh"):
            checked = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True, check=False)
            assert checked.returncode == 0, checked.stderr


@pytest.fixture
def hostile(tmp_path) -> dict[str, str]:
    """An environment in which whatever takes a hint from it leaves a mark in the folder MARKS."""
    marks, commands, elsewhere = tmp_path / "marks", tmp_path / "hostile", tmp_path / "elsewhere"
    for one in (marks, commands, elsewhere):
        one.mkdir()
        one.chmod(0o777)
        if os.geteuid() == 0:
            os.chown(one, 12345, 12345)
    script = f"#!/bin/sh\necho > {marks}/${{0##*/}}\nexit 1\n"
    for name in (
        *STEPS,
        "id",
        "env",
        "sh",
        "sed",
        "mktemp",
        "sha256sum",
        "openssl",
        "dirname",
        "uname",
        "grep",
        "find",
    ):
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    (commands / "startup").write_text(f"echo > {marks}/startup\n")
    # What a relative name finds where CDPATH is asked.
    (elsewhere / "kit").mkdir()
    (elsewhere / "kit" / "kit.conf").write_text("version=6.6.6\n")
    mark = f"{{ echo > {marks}/function; }}"
    return {
        "MARKS": str(marks),
        "PATH": f"{commands}:{os.environ['PATH']}",
        "CDPATH": str(elsewhere),
        "TAR_OPTIONS": f"--checkpoint=1 --checkpoint-action=exec=touch\\ {marks}/tar",
        "GZIP": "-S .no",
        "IFS": "/",
        "TMPDIR": str(elsewhere),
        "ENV": str(commands / "startup"),
        "POSIXLY_CORRECT": "1",
        "LD_LIBRARY_PATH": str(commands),
        "PYTHONPATH": str(commands),
        "PERL5OPT": "-Mno_such_module",
        "OPENSSL_CONF": "/nowhere",
        "GREP_OPTIONS": "-v",
        "LC_ALL": "tr_TR.UTF-8",
        "BLOCK_SIZE": "1",
        **{f"BASH_FUNC_{name}%%": f"() {mark}" for name in ("cd", "rm", "mv", "id", "pwd", "sha256sum", "tar")},
    }


@pytest.mark.parametrize("umask", ["0777", "0000", "0022"])
def test_nothing_of_the_callers_environment_decides_what_is_installed(kits, system, pub, tmp_path, hostile, umask):
    kit = tmp_path / "kit"
    shutil.copytree(kits("1.0.0", signed=True, as_shipped=True), kit, symlinks=True)
    line = f"umask {umask}; exec /bin/sh kit/install.sh --root system --key plant.pub"
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=tmp_path, env=hostile, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(Path(hostile["MARKS"]).iterdir()) == []
    assert list(Path(hostile["TMPDIR"]).iterdir()) == [Path(hostile["TMPDIR"]) / "kit"]
    assert installed(system) == "1.0.0"
    assert "signature     by " in done.stdout
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in system.rglob("*") if not path.is_symlink()}
    wrong = {path: oct(mode) for path, mode in modes.items() if mode & 0o022 or mode & 0o444 != 0o444}
    assert wrong == {}
    assert {stat.S_IMODE((system / "opt/appliance" / one).stat().st_mode) for one in ("", "versions")} == {0o755}


def test_maintainer_scripts_take_neither_commands_nor_rights_from_their_caller():
    for name in ("postinst", "prerm", "postrm"):
        lines = (PACKAGING / "debian" / name).read_text().splitlines()
        begun = lines[: next(number for number, line in enumerate(lines) if line.startswith(("case", "if ")))]
        assert "PATH=/usr/sbin:/usr/bin:/sbin:/bin" in begun, name
        assert "umask 022" in begun, name
