"""What a scripted engine answers."""

from engine.request import InfillResult, Mode, StopReason


def answer(text, stop=StopReason.COMPLETE, confidence=1.0):
    return InfillResult(
        text=text,
        stop=stop,
        mode=Mode.CAUSAL,
        model="scripted",
        confidence=confidence,
        tokens=1,
        forwards=1,
        prompt_tokens=1,
        cached_tokens=0,
    )
