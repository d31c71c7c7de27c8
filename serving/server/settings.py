"""What a server allows, and its defaults: the one place for both."""

from dataclasses import dataclass

TOKEN_VARIABLE = "MUSICAL_TOKEN"
"""Environment variable that `Settings.token` is read from."""


@dataclass(frozen=True)
class Settings:
    """What a server allows.

    Attributes:
        max_bytes: Largest body of a request.
        max_pixels: Largest image or mask.
        timeout: Seconds from a request's headers to its answer.
        queue: Requests that may wait beside those that are worked on; their bodies are in memory.
        batch: Most windows in one run of the model.
        token: What clients must send as `Authorization: Bearer TOKEN`; None asks for nothing.
        allowed_hosts: Names that requests may have in Host, beside those of loopback; None allows
            all.
        allowed_origins: Origins whose pages may use the server (CORS); "*" allows all.
        isolate: Whether images are decoded and encoded in worker processes, which can be killed,
            instead of in threads of the server.
    """

    max_bytes: int = 64 * 2**20
    max_pixels: int = 50_000_000
    timeout: float = 60.0
    queue: int = 16
    batch: int = 1
    token: str | None = None
    allowed_hosts: tuple[str, ...] | None = None
    allowed_origins: tuple[str, ...] = ()
    isolate: bool = True

    @property
    def workers(self) -> int:
        """Threads that work on requests, and processes that decode and encode for them.

        Enough for a batch, and at least two.
        """
        return max(2, self.batch)
