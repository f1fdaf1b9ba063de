# Everything below sets itself up; a machine needs Python 3.10 or newer (with venv) and make.
PYTHON ?= python3
BENCH := aiohttp airbyte dlt rest-msdk
LOCKS := airflow audit bootstrap browser build dbt dbt-1-10 dbt-1-11 fakesnow meltano pipelinewise-target-postgres report target-csv \
  target-jsonl target-postgres target-snowflake $(BENCH:%=bench-%)
# How old a release has to be to be pinned: a bad one is mostly found out by then, and mirrors know it.
COOL_DOWN := "7 days"
TESTED := airflow browser dbt dbt-1-10 dbt-1-11 fakesnow pipelinewise-target-postgres report target-csv

# Where Python may not write it (PYTHONDONTWRITEBYTECODE), each start would take twice as long;
# the tap's own modules, compiled below, are a tenth of it.
export UV_COMPILE_BYTECODE := 1
export UV_NO_PROGRESS := 1
# As pip does: where a proxy re-signs TLS, its CA is known to the system only.
export UV_SYSTEM_CERTS := 1

.DEFAULT_GOAL := help
.PHONY: help demo demo-airflow notify report test test-celery test-fresh test-matrix check check-snowflake audit dist bench \
  bench-quick bench-forecasts format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/ready .meltano/demo-ready .venvs/report/ready ## From an empty clone to alerts and a page, without an account
	@.venv/bin/python demo/demo.py

EXECUTOR ?= local
demo-airflow: .venv/ready .meltano/demo-ready .venvs/airflow/ready ## The same by a real Airflow, on its schedule (EXECUTOR=celery: on two workers; needs root)
	@.venv/bin/python demo/airflow_demo.py $(EXECUTOR)

report: .venvs/dbt/ready .venvs/report/ready ## Write output/report.html from the dbt models (connection: transform/profiles.yml)
	.venvs/report/bin/python transform/report.py --dbt $(CURDIR)/.venvs/dbt/bin/dbt --output output/report.html

notify: .venvs/dbt/ready ## Post new alerts to the services in APPRISE_URLS (connection: transform/profiles.yml; NOTIFY=--dry-run)
	.venvs/dbt/bin/python transform/notify.py --state output/notify.json $(NOTIFY)

test: .venv/ready .meltano/ready $(TESTED:%=.venvs/%/ready) ## Lint, types, all tests, as in CI on each push
	@$(MAKE) --no-print-directory lint
	.venv/bin/python -m pytest --numprocesses 3 -m 'not celery'

test-celery: .venv/ready .meltano/ready .venvs/airflow/ready ## The DAGs on two Celery workers, and what can happen to them; needs root
	.venv/bin/python -m pytest -m celery

SUITE ?= trixie
test-fresh: ## make demo and make test in a new Debian (SUITE=trixie or forky), as an ordinary user; needs root
	@tests/support/fresh.sh $(SUITE) 'make demo' 'make test'

test-matrix: .venv/ready dist ## Each Python here (or PYTHONS=...) with the lowest and the newest dependencies
	@.venv/bin/python tests/support/matrix.py --exclude-newer $(COOL_DOWN) $(PYTHONS)

check-snowflake: .venv/ready .meltano/ready .venvs/fakesnow/ready ## Check a real Snowflake account, from SNOWFLAKE_ variables
	@.venv/bin/python tests/support/check_snowflake.py

check: .venv/ready ## The fast inner loop: lint, types, and the tests that take no time
	@$(MAKE) --no-print-directory lint
	.venv/bin/python -m pytest -q -m 'not e2e and not slow'

.PHONY: lint
lint: # .pre-commit-config.yaml has the same lines
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/codespell
	.venv/bin/mypy
	make --no-print-directory .venv/sql-linted
	.venv/bin/zizmor --offline --quiet --pedantic .github .pre-commit-config.yaml
	.venv/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv/bin/check-jsonschema --builtin-schema custom.github-workflows-require-timeout .github/workflows/*.yml

# Half of the time of all linters, so only when SQL has changed.
.venv/sql-linted: .venv/ready transform/.sqlfluff $(wildcard transform/m*/*.sql transform/m*/*/*.sql)
	.venv/bin/sqlfluff lint --disable-progress-bar transform/models
	@touch $@

audit: .venvs/audit/ready ## Look for known vulnerabilities in the highest and the lowest pins of the tap
	.venvs/audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/tap.txt
	.venvs/audit/bin/pip-audit --strict --disable-pip --require-hashes -r requirements/tap-lowest.txt

dist: .venv/ready ## Build sdist and wheel; the same source gives the same bytes
	.venv/bin/python -m hatchling build --clean

bench: .venvs/dbt/ready .venvs/meltano/ready $(BENCH:%=.venvs/bench-%/ready) ## Compare its speed with others; writes benchmarks/RESULTS.md
	.venv/bin/python benchmarks/bench.py
	.venv/bin/python benchmarks/transform.py

bench-quick: .venv/ready .venvs/meltano/ready $(BENCH:%=.venvs/bench-%/ready) ## The same, smaller, in under two minutes
	.venv/bin/python benchmarks/bench.py --quick

bench-forecasts: .venv/ready .venvs/dbt/ready .venvs/bench-forecasts/ready ## Judge the dbt models' forecasts; writes benchmarks/FORECASTS.md
	.venv/bin/python benchmarks/forecasts/evaluate.py

format: .venv/ready ## Format the code and mend what ruff can mend
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

lock: .venv/ready ## Pin the newest allowed versions in requirements/
	@for group in $(LOCKS); do \
	  $(COMPILE) --group $$group --output-file requirements/$$group.txt || exit; \
	done
	@$(COMPILE) --no-deps --group bench-forecasts --output-file requirements/bench-forecasts.txt
	@$(COMPILE) pyproject.toml --output-file requirements/tap.txt
	@$(COMPILE) pyproject.toml --group dev --output-file requirements/dev.txt
	@$(COMPILE) pyproject.toml --resolution lowest-direct --output-file requirements/tap-lowest.txt
	@$(COMPILE) pyproject.toml --group build --group test --constraint requirements/tap-lowest.txt \
	  --output-file requirements/lowest.txt

COMPILE = .venv/bin/uv pip compile --quiet --upgrade --universal --generate-hashes \
  --python-version 3.10 --no-emit-index-url --exclude-newer $(COOL_DOWN) --custom-compile-command 'make lock'

clean: ## Remove what the other targets made; what was loaded into output/ stays
	rm -rf dist output/report.html .venv .venvs .meltano .mypy_cache .pytest_cache .ruff_cache .hypothesis \
	  demo-output transform/logs transform/target
	find . -name __pycache__ -prune -exec rm -r {} +

.venv/ready: requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; set PYTHON=...")'
	@echo 'Setting up .venv (the tap and the tools to develop it) ...'
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@.venv/bin/uv pip install --quiet --python .venv --require-hashes -r requirements/dev.txt
	@.venv/bin/uv pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	@env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -m compileall -q tap_balance
	@touch $@

# Without the variable: the definitions say `--compile` themselves, since they are copied to where no Makefile is.
MELTANO_INSTALL := env -u UV_COMPILE_BYTECODE MELTANO_CLI_DISABLE_VERSION_CHECK=1 .venvs/meltano/bin/meltano install
PLUGIN_PINS := meltano.yml $(wildcard plugins/*/*.lock) $(patsubst %,requirements/%.txt,build dbt tap target-jsonl target-postgres target-snowflake)

.meltano/ready: .venvs/meltano/ready $(PLUGIN_PINS)
	@echo 'Installing the plugins of meltano.yml ...'
	@$(MELTANO_INSTALL)
	@touch $@

.meltano/demo-ready: .venvs/meltano/ready $(PLUGIN_PINS)
	@echo 'Installing the tap, the target and dbt for Meltano ...'
	@$(MELTANO_INSTALL) extractor tap-balance loader target-postgres
	@$(MELTANO_INSTALL) utility dbt-postgres
	@touch $@

# Without what it depends on: only its files are read.
.venvs/bench-forecasts/ready: WITHOUT_DEPS := --no-deps
.venvs/%/ready: requirements/%.txt | .venv/ready
	@echo 'Setting up .venvs/$* ...'
	@.venv/bin/uv venv --quiet --clear --python .venv/bin/python .venvs/$*
	@.venv/bin/uv pip install --quiet --python .venvs/$* $(WITHOUT_DEPS) --require-hashes -r $<
	@touch $@
