"""A handler that other parts of a configuration refer to, as an item of a list of handlers."""

from __future__ import annotations

from typing import Any


def shared_handler(handler: Any) -> Any:
    """Give the handler itself.

    MONAI looks at the ``_target_`` of every item of ``train::handlers``, so none may be a bare reference.

    Args:
        handler: built elsewhere in the configuration.
    """
    return handler
