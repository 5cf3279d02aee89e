"""Settings of all test processes, before torch is imported: here is before everything."""

import os
import sys

# Its networks are so small that threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many tests start a process that imports torch; where bytecode is not kept, each compiles its modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
