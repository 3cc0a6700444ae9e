"""What this machine does not have is not tested here; CI has it all (`.ci/run`)."""

import shutil

collect_ignore = [] if shutil.which("etcd") else ["test_etcd.py"]
