# make demo | test | test-all | test-clusters | ui | app | base | lint
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1

.DELETE_ON_ERROR:
.PHONY: demo test test-all test-clusters ui app base lint

# The environment, once: locked versions, then again only when they change.
.venv/run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/test: .venv/run
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

# From labelled pictures to the verdict, on the embedded digits.
demo: .venv/run
	dvc repro
	@cat report/summary.txt

test: .venv/test
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: .venv/test
	python -m pytest -m ''

# Dask, Ray, submitit and S3 as well, of which test-all skips what is not installed.
test-clusters: .venv/test
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,clusters]'
	python -m pytest -m '' tests/test_scaling.py tests/flows/test_cluster.py

lint: .venv/test
	ruff check . && ruff format --check .

# Retrain the shipped base model from nothing (about an hour on two cores), then measure it.
base: .venv/run
	python -m tasks.models.pretrain look --out .rft/tower.safetensors
	python -m tasks.models.pretrain talk --tower .rft/tower.safetensors --out models/tiny
	python -m tasks.models.measure --model models/tiny

# Prefect and MLflow in the browser until Ctrl-C, on this machine only: neither has a login. They show the same databases
# that runs without them write to. The first line makes MLflow's tables under our lock, before anything else can.
ui: export MLFLOW_DISABLE_TELEMETRY = true
ui: export DO_NOT_TRACK = 1
ui: export PREFECT_SERVER_ANALYTICS_ENABLED = false
ui: .venv/run
	@python -c "from tasks import params, tracking; tracking.init(params.load_params().study)"
	@echo "Prefect http://127.0.0.1:4200    MLflow http://127.0.0.1:5000    Ctrl-C stops both"
	@echo "runs show while they go on with: PREFECT_API_URL=http://127.0.0.1:4200/api .venv/bin/python -m flows.pipeline"
	@trap 'kill $$prefect $$mlflow 2>/dev/null; wait' EXIT; trap 'exit 130' INT TERM; \
	prefect server start --host 127.0.0.1 --port 4200 > .rft/prefect.log 2>&1 & prefect=$$!; \
	mlflow server --host 127.0.0.1 --port 5000 --workers 1 --backend-store-uri sqlite:///$(CURDIR)/.rft/mlflow.db \
	  > .rft/mlflow.log 2>&1 & mlflow=$$!; \
	wait

# Ask the trained policies in the browser until Ctrl-C, on this machine only.
app: .venv/run
	python -m tasks.app --pool data/pool --policies policies
