"""One thread for each test process: its networks are so small that threads only wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: here is before everything
