"""What one request may hold: bytes, rows and nesting. A listener makes it of its own settings."""

from typing import Self

import msgspec

from appliance.config import HttpConfig
from appliance.errors import TooLarge


class Limits(msgspec.Struct, frozen=True):
    """The limits of one request; `section` is the table of the configuration that sets them, for the messages."""

    section: str
    body_bytes: int
    """Of the body, as sent and as decompressed."""
    rows: int
    nesting: int
    """Brackets within brackets in JSON."""

    @classmethod
    def of_http(cls, config: HttpConfig) -> Self:
        """Return the limits of the `[http]` table."""
        return cls("http", config.max_body_bytes, config.max_rows, config.max_nesting)

    def check_rows(self, count: int) -> None:
        """Raise TooLarge for more rows than one request may have."""
        if count > self.rows:
            found = f"there are {count}, {self.rows} may be"
            raise TooLarge("read the rows", found, f"send fewer rows at once, or raise [{self.section}] max_rows")
