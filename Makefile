# Short calls only; what they do lies in Snakefile, lib/ and tests/.
PYTHON ?= python3
CORES ?= 2
PINS ?= -c constraints.txt
# Programs are run as modules: their scripts in .venv/bin begin with the path of the checkout, which may hold a space.
PY := .venv/bin/python
SNAKE := $(PY) -m snakemake --profile data/sweeps/profiles/local --cores $(CORES)

# glibc gives the memory of each large tensor back and asks for it again; kept, asking the model takes 8 % less CPU time (`CHANGELOG.md`).
# Where there is no glibc these names mean nothing.
study live figures verify: export MALLOC_MMAP_MAX_ := 0
study live figures verify: export MALLOC_TRIM_THRESHOLD_ := 4294967296
study live figures verify: export MALLOC_TOP_PAD_ := 67108864

.DEFAULT_GOAL := help
.PHONY: help env check study test test-versions smoke live gpu figures verify report clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

env: .venv/.installed ## make .venv with the exact versions of constraints.txt (once)

.venv/.installed: pyproject.toml constraints.txt
	"$(PYTHON)" -m venv .venv
	$(PY) -m pip install --quiet -e '.[dev]' $(PINS)
	@touch $@

study: env ## run every notebook live on a sample of the questions, then print the verdicts
	$(SNAKE) --config sweep=data/sweeps/study.yml
	@$(PY) -m lib readme --show data/runs/study

check: env ## format, lint, types and the order of imports, in seconds
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m pyrefly check
	$(PY) -m pytest -q tests/test_imports.py

test: check ## unit, property and repository tests, every notebook against its committed outputs, then make smoke
	@$(PY) tests/unchanged.py note
	$(PY) -m pytest -n $(CORES) --dist worksteal tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(CORES) --dist loadfile --nbval --nbval-current-env \
		--nbval-cell-timeout=900 --nbval-kernel-startup-timeout=180 --nbval-sanitize-with=nbval.cfg notebooks/
	@$(MAKE) --no-print-directory smoke
	@$(PY) tests/unchanged.py check

test-versions: env ## the model tests with the lowest and the newest versions of pyproject.toml, in environments of their own
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(PY) -m testkit.versions $(VERSIONS)

smoke: env ## run every notebook live on two pictures: does it still run from top to bottom?
	$(PY) -m lib prepare data/sweeps/smoke.yml
	OMP_NUM_THREADS=1 $(PY) -m pytest --nbval-lax -n 2 --dist loadfile --no-loadscope-reorder --nbval-current-env \
		--nbval-cell-timeout=900 --nbval-kernel-startup-timeout=180 data/runs/smoke/notebooks

live: env ## the same as study, on all questions (hours on a CPU); with MODEL=... the papers' benchmarks on that model
ifdef MODEL
	$(PY) -m lib live "$(MODEL)" --benchmarks "$(or $(BENCHMARKS),all)" $(ARGS)
else
	$(SNAKE) --config sweep=data/sweeps/live.yml
	@$(PY) -m lib readme --show data/runs/live
endif

gpu: env ## record timings of the 7B models and of the kernels on this machine's accelerator; repeat until it says done
	$(PY) -m lib record-cost --out data/records/cost
	$(PY) -m lib kernel-bench --out data/records/kernels.csv

figures: env ## draw figures and tables again from the committed records, and the README's table
	$(SNAKE) --forceall --config sweep=data/sweeps/recorded.yml
	$(PY) -m lib readme --write

verify: env ## compute every table, figure's numbers and verdict again from the records; fail on any difference
	$(PY) -m lib verify --jobs $(CORES)

report: .venv/.report ## build the static report, data/runs/report/html: claims, notebooks, figures, an explorer
	$(PY) -m lib report

.venv/.report: .venv/.installed
	$(PY) -m pip install --quiet -e '.[report]' $(PINS)
	@touch $@

clean: ## remove what runs left behind; committed evidence stays
	rm -rf data/runs .snakemake .pytest_cache .ruff_cache .hypothesis build
	find lib tests -name __pycache__ -type d -prune -exec rm -rf {} +
