"""What a scripted engine answers."""

from engine.endings import first_line
from engine.request import Candidate, InfillResult, Mode, StopReason


def answer(text, stop=StopReason.COMPLETE, confidence=1.0, line=None, begun=(), others=()):
    """`line` is the confidence in the first line alone; `begun` and `others` are texts with theirs."""
    begun = (*begun, *([(first_line(text), line)] if line is not None else []))
    return InfillResult(
        text=text,
        stop=stop,
        mode=Mode.CAUSAL,
        model="scripted",
        confidence=confidence,
        beginnings=tuple(Candidate(text=text, confidence=p) for text, p in begun),
        alternatives=tuple(Candidate(text=text, confidence=p) for text, p in others),
        tokens=1,
        forwards=1,
        prompt_tokens=1,
        cached_tokens=0,
    )
