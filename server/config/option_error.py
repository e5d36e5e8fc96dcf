"""Names an option that cannot be used, in the words that operators know from the original."""

from server.errors import ConfigError


class OptionError(ConfigError):
    """`text` is the whole message (O5, O20-O29): scripts look for it. The facts are in the attributes of ConfigError."""

    def __init__(self, text: str, *, option: str, value: object, allowed: str) -> None:
        super().__init__(option=option, value=value, allowed=allowed)
        self.text = text

    def __str__(self) -> str:
        return self.text
