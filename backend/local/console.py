"""What the person at the keyboard is told."""


class Refusal(Exception):
    """A reason not to go on, said in one clear line."""


def say(line: str) -> None:
    print(line, flush=True)
