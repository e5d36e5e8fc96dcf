"""What a check raises. The invariants are numbered as in the specification of reliability: R1 to R20."""


class ViolationError(Exception):
    """An invariant is broken. `rule` names it: an R number, or what of Raft it belongs to."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
