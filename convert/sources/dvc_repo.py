"""Models under DVC: `dvc:PATH@REV` in the repository here, `dvc:REPOSITORY#PATH@REV` in another (a URL or a folder).

DVC finds the file's digest in the Git revision, and the file by that digest in the repository's remote
(https://dvc.org/doc/api-reference/dvcfilesystem).
"""

import os
import re
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("DVC_NO_ANALYTICS", "1")  # no telemetry

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.scm import CloneError, RevError

from appliance.errors import Misuse, NotFound, NotReady
from convert.sources.fetched import Fetched, without_secrets
from convert.sources.unpack import open_model

_URL = re.compile(r"dvc:(?:(?P<repository>[^#]+)#)?(?P<path>[^#@]+)(?:@(?P<rev>[^#@]+))?")


def fetch(url: str, folder: Path) -> Fetched:
    """Return the model of `url`, put into `folder`; its run is the Git commit.

    Without `@REV`: the working files of the local repository, or the default branch of another one. Raises
    NotFound, NotReady when the repository or its remote does not answer, and Misuse for a malformed URL.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        raise Misuse(f"fetch {url}", "it is not dvc:PATH@REV", "write it as dvc:models/pump.skops@v1.2.0")
    path = folder / Path(parts["path"]).name
    shown = without_secrets(url)
    try:
        files = DVCFileSystem(parts["repository"], rev=parts["rev"])
        files.get_file(parts["path"], str(path))
        commit = files.repo.get_rev() if parts["rev"] or parts["repository"] else ""
    except (FileNotFoundError, RevError) as error:
        raise NotFound(f"fetch {shown}", _first_line(error), "check the path and the revision") from error
    except (DvcException, CloneError, OSError) as error:
        next_step = "check the repository, its remote (dvc remote list) and the rights to read it"
        raise NotReady(f"fetch {shown}", _first_line(error), next_step) from error
    return replace(open_model(path, folder, "", _story(parts)), run=commit)


def _first_line(error: Exception) -> str:
    """Return what went wrong; DVC keeps the reason in the error's cause."""
    text = ": ".join(str(part) for part in (error, error.__cause__) if part is not None)
    return without_secrets(text.strip().splitlines()[0]) or type(error).__name__


def _story(parts: re.Match[str]) -> str:
    """Return the URL without credentials, and without the folders of a repository on this machine."""
    repository = without_secrets(parts["repository"] or "")
    if repository and Path(repository).exists():
        repository = Path(repository).resolve().name
    where = f"{repository}#" if repository else ""
    revision = f"@{parts['rev']}" if parts["rev"] else ""
    return f"dvc:{where}{parts['path']}{revision}"
