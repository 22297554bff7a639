"""What all tests share."""

import signal

from hypothesis import settings

# How long an example takes says how busy the machine is. What fails once is printed so that it can be tried again.
settings.register_profile("paglets", deadline=None, print_blob=True)
settings.load_profile("paglets")

# A shell starts what it runs in the background with Ctrl-C ignored, and every process of a test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
