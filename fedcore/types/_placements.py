"""Placements: where a value lives."""

from typing import Any

import attrs


@attrs.frozen(slots=False, eq=False, repr=False)
class PlacementLiteral:
    """A place where parts of a computation run and values live.

    Args:
        name: The name in text, such as `CLIENTS`.
        uri: What identifies the placement; literals of one URI are equal.
        default_all_equal: Whether values placed there are all-equal unless said otherwise.
        description: One sentence for people.
    """

    name: str
    uri: str
    default_all_equal: bool
    description: str

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.description)

    def is_server(self) -> bool:
        """Whether this is the server."""
        return self.uri == "server"

    def is_clients(self) -> bool:
        """Whether these are the clients."""
        return self.uri == "clients"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PlacementLiteral):
            return NotImplemented
        return self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"PlacementLiteral({self.uri!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if _BY_URI.get(self.uri) is self:
            return uri_to_placement, (self.uri,)
        return type(self), (
            self.name,
            self.uri,
            self.default_all_equal,
            self.description,
        )


CLIENTS = PlacementLiteral(
    "CLIENTS", "clients", default_all_equal=False, description="All clients together."
)
SERVER = PlacementLiteral(
    "SERVER", "server", default_all_equal=True, description="The one central server."
)
_BY_URI = {placement.uri: placement for placement in (CLIENTS, SERVER)}


def uri_to_placement(uri: str) -> PlacementLiteral:
    """The placement of URI `uri`.

    Raises:
        ValueError: If there is none.
    """
    if uri not in _BY_URI:
        raise ValueError(
            f"`uri_to_placement` needs one of {sorted(_BY_URI)}, found {uri!r}."
        )
    return _BY_URI[uri]
