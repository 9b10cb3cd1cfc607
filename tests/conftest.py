"""What every test relies on."""

import signal

# A run in the background of a shell inherits an ignored SIGINT and would hand it on to every
# program it starts: none of them could then be ended as Ctrl-C ends it.
signal.signal(signal.SIGINT, signal.default_int_handler)
