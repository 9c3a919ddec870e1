"""What a scripted engine answers."""

from engine.request import InfillResult, Mode, StopReason


def answer(text):
    return InfillResult(
        text=text,
        stop=StopReason.COMPLETE,
        mode=Mode.CAUSAL,
        model="scripted",
        confidence=1.0,
        tokens=1,
        forwards=1,
        prompt_tokens=1,
        cached_tokens=0,
    )
