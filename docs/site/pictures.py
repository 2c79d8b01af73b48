"""A hook of mkdocs: puts the pictures that `make docs` took where a page has a mark for one.

The mark is a comment, `<!-- picture: NAME.png; what it shows -->`, so a page reads as well without its pictures, which
are not committed.
"""

import re
from pathlib import Path
from typing import Any

MARK = re.compile(r"<!-- picture: ([\w-]+\.png); (.+?) -->")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Return a page's text with its marks replaced by pictures; one that was not taken leaves nothing."""
    pictures = Path(config["docs_dir"]) / "pictures"
    up = "../" * page.file.src_uri.count("/")

    def image(found: re.Match[str]) -> str:
        name, text = found.groups()
        return f"![{text}]({up}pictures/{name})" if (pictures / name).exists() else ""

    return MARK.sub(image, markdown)
