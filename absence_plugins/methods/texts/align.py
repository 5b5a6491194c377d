"""Two texts, token by token: :func:`absence_plugins.core.token_pairs.align_tokens`."""

from absence_plugins.core.token_pairs import align_tokens

__all__ = ["align_tokens"]
