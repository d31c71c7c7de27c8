"""What a server allows: each limit's default, range and flag."""

from dataclasses import dataclass
from pathlib import Path

from ..options import option

TOKEN_VARIABLE = "MUSICAL_TOKEN"
"""Environment variable that `Settings.token` is read from."""


@dataclass(frozen=True)
class Settings:
    """What a server allows.

    Attributes:
        token: What clients must send as `Authorization: Bearer TOKEN`; None asks for nothing.
        allowed_hosts: Names that requests may have in Host, beside those of loopback; None allows
            all.
        allowed_origins: Origins whose pages may use the server (CORS); "*" allows all.
        output_dir: The folder that every result is saved in; None saves none.
        isolate: Whether images are decoded and encoded in worker processes, which can be killed,
            instead of in threads of the server.
    """

    max_bytes: int = option(64 * 2**20, "Refuse larger bodies.", ge=1024, le=2**31, metavar="N")
    max_pixels: int = option(
        50_000_000, "Refuse larger images and masks.", ge=1, le=178_956_970, metavar="N"
    )
    timeout: float = option(
        60.0,
        "Limit for a request, waiting included.",
        ge=1,
        le=3600,
        metavar="SECONDS",
    )
    queue: int = option(
        16,
        "Number of requests that may wait; more are refused.",
        ge=0,
        le=10_000,
        metavar="N",
    )
    batch: int = option(
        1,
        "Maximum number of requests whose windows go into one run of the model.",
        ge=1,
        le=64,
        metavar="N",
    )
    token: str | None = None
    allowed_hosts: tuple[str, ...] | None = None
    allowed_origins: tuple[str, ...] = ()
    output_dir: Path | None = None
    isolate: bool = True

    @property
    def workers(self) -> int:
        """Threads that work on requests, and processes that decode and encode for them.

        Enough for a batch, and at least two.
        """
        return max(2, self.batch)
