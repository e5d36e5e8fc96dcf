"""Makes tokens: random names that cannot be guessed and are legal in a NATS subject."""

import secrets
import string
from typing import Final

TOKEN_LENGTH: Final = 22
"""Characters of a token, as of the original's (B16)."""

_ALPHABET: Final = string.ascii_letters + string.digits


def new_token() -> str:
    """22 random letters and digits: what names an ack inbox, a cluster's inboxes or a process (B16, B17)."""
    number = secrets.randbelow(len(_ALPHABET) ** TOKEN_LENGTH)  # one system call, where a choice each made 22
    letters: list[str] = []
    for _ in range(TOKEN_LENGTH):
        number, letter = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[letter])
    return "".join(letters)
