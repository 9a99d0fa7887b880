"""What drives the graph: Hydra composes `params.yaml`, Prefect runs the stages of `dvc.yaml`. The work is in tasks/."""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# of the server that a flow starts for itself: 20 s, as shipped, are too few for a busy machine
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
