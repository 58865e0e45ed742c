"""What a flow is configured with, as it may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ENDINGS = ("key", "secret", "token", "password", "credential", "authorization")


def shown_config(config: Any) -> Any:
    """A flow's configuration as it may be shown: values under names that end like a secret's are masked.

    >>> shown_config({"temperature": 0.2, "openAIApiKey": "sk-1", "maxOutputTokens": 9})
    {'temperature': 0.2, 'openAIApiKey': '***', 'maxOutputTokens': 9}
    """
    if isinstance(config, Mapping):
        return {
            name: "***" if str(name).casefold().endswith(_ENDINGS) else shown_config(value)
            for name, value in config.items()
        }
    if isinstance(config, list | tuple):
        return [shown_config(value) for value in config]
    return config
