"""What holds for all tests."""

import gc
import signal

# A shell starts what it puts in the background with interrupts ignored, and so would run the
# programs that tests interrupt: they would inherit that from pytest.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """What was imported stays: it need not be looked through for garbage again and again."""
    gc.collect()
    gc.freeze()
