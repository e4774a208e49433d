# SPDX-License-Identifier: GPL-3.0-or-later
# The few commands that people type. `make help` lists them.
# On a new machine `make demo` and `make test` install what they need; Python 3.11 or later, make and git suffice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKER := roles/worker/files/solver-worker
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.DEFAULT_GOAL := help
.PHONY: fresh help setup demo fleet fleet-down check check-tests test lint unit worker-test quick light fuzz integration faults campaign traps cores molecule sanity bench hosts hosts-down hosts-test hosts-faults hosts-quick hosts-molecule pictures clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1	\2/' | expand -t 22

setup: $(VENV)/.dev ## Install everything for development into .venv

demo: $(VENV)/.run ## Update four real workers under traffic, and audit the books (KEEP=1 leaves them running)
	@$(BIN)/python tools/demo.py

fleet: $(VENV)/.run ## Start the embedded local fleet
	@$(BIN)/ansible-playbook -i localhost, playbooks/local_fleet.yml

fleet-down: $(VENV)/.run ## Stop it and remove it
	@$(BIN)/ansible-playbook -i localhost, playbooks/local_fleet.yml -e solver_local_fleet_state=absent

check: $(VENV)/.dev ## While you work, in two minutes: lint, types, the decisions, two rollouts
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint check-tests

check-tests: $(VENV)/.dev
	$(BIN)/pytest tests/unit tests/light/test_rollout_smoke.py -n auto --dist worksteal -m 'not slow and not programs' --junit-xml=.cache/results/check.xml

test: $(VENV)/.dev fresh ## Run the tests that need no root, of each kind those that say most in little time
	@# The worker's tests wait more than they compute, lint only computes.
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint worker-test
	@$(MAKE) --no-print-directory unit quick cores
	@$(BIN)/python tools/test_total.py

fresh:
	@rm -rf .cache/results && mkdir -p .cache/results

lint: $(VENV)/.dev ## ruff, mypy, yamllint, ansible-lint
	$(BIN)/ruff check .
	$(BIN)/mypy plugins tools $(WORKER)/src
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline --strict

unit: $(VENV)/.dev ## Unit tests of the plugins
	$(BIN)/pytest tests/unit -n auto --dist worksteal -m 'not slow' --junit-xml=.cache/results/unit.xml

worker-test: $(VENV)/.dev ## The reference worker's own tests
	@# These wait more than they compute.
	cd $(WORKER) && PYTHONPATH=src "$(CURDIR)/$(BIN)/pytest" -n 6 --dist worksteal --junit-xml="$(CURDIR)/.cache/results/worker.xml"

quick: $(VENV)/.dev ## The demo, rollouts of light workers, modules at a real worker, hostile answers: the quick ones of each
	$(BIN)/pytest tests/fuzz tests/integration tests/faults tests/light -n 2 --dist worksteal -m quick --junit-xml=.cache/results/quick.xml

light: $(VENV)/.dev ## All rollouts of light workers, which only pretend to solve, and the contract that they keep
	$(BIN)/pytest tests/light -n 2 --dist worksteal --junit-xml=.cache/results/light.xml

integration: $(VENV)/.dev ## All of: modules and playbooks against real workers, under traffic
	$(BIN)/pytest tests/integration -n 2 --dist worksteal --junit-xml=.cache/results/integration.xml

faults: $(VENV)/.dev ## Inject every fault into real fleets under traffic; prints a table
	$(BIN)/pytest tests/faults -n 2 --dist worksteal --junit-xml=.cache/results/faults.xml

campaign: $(VENV)/.dev ## Every test that `make test` leaves out (SHARE=600: for so many seconds, others each time)
	$(BIN)/python tools/campaign.py $(if $(SHARE),--seconds $(SHARE))

traps: $(VENV)/.dev ## Every trap of Ansible, on the oldest and the newest ansible-core that can be installed here (CORE=2.21: on that one)
	$(BIN)/python tools/cores.py --traps $(if $(CORE),--core $(CORE))

cores: $(VENV)/.dev ## The playbooks on the oldest and the newest ansible-core that can be installed here
	$(BIN)/python tools/cores.py

molecule: $(VENV)/.dev ## The molecule scenarios on a local fleet
	@# What an interrupted run left behind is made anew, whatever molecule remembers of it.
	export PATH="$(CURDIR)/$(BIN):$$PATH"; molecule reset --scenario-name default && molecule test --all

sanity: $(VENV)/.dev ## ansible-test sanity
	$(BIN)/python tools/sanity.py

fuzz: $(VENV)/.dev ## Any answer of a worker's host, of its socket, and of a provider (SF_EXAMPLES=10000 for more)
	$(BIN)/pytest tests/fuzz -n 2 --junit-xml=.cache/results/fuzz.xml

hosts: ## Start three disposable systemd hosts with SSH on this machine (root on Debian; COUNT=3)
	@$(PYTHON) tests/hosts/lab.py up --count $(or $(COUNT),3)

hosts-down: ## Remove them without a trace
	@$(PYTHON) tests/hosts/lab.py down

# Which file is run beside molecule: the number of commits decides, so that they take turns; HOSTS=router or HOSTS=provision chooses.
HOSTS ?= $(if $(filter %1 %3 %5 %7 %9,$(shell git rev-list --count HEAD 2>/dev/null)),router,provision)

hosts-test: $(VENV)/.dev ## Provision, update and break workers on such hosts, over SSH, or behind HAProxy, each in its turn (root on Debian)
	@# Both wait for their hosts more than they compute.
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target hosts-molecule hosts-quick

hosts-quick: $(VENV)/.dev
	@echo "hosts-test: tests/hosts/test_$(HOSTS).py; test_$(filter-out $(HOSTS),router provision).py is NOT RUN this time"
	$(BIN)/pytest tests/hosts/test_$(HOSTS).py -m 'not long' --junit-xml=.cache/results/hosts.xml

hosts-faults: $(VENV)/.dev ## All of it without molecule, and what takes long: every way to lose a host
	$(BIN)/pytest tests/hosts -n 2 --dist loadfile --junit-xml=.cache/results/hosts.xml

hosts-molecule: $(VENV)/.dev
	@# What an interrupted run left behind is gone, whatever molecule remembers of it.
	$(BIN)/python tests/hosts/keep.py down
	export PATH="$(CURDIR)/$(BIN):$$PATH" MOLECULE_GLOB='tests/molecule/*/molecule.yml'; \
	  molecule --base-config tests/molecule/config.yml reset --scenario-name default && \
	  molecule --base-config tests/molecule/config.yml test --all

bench: $(VENV)/.dev ## Measure sizes and times: the worker, and the engine (tests/bench/engine.py has more)
	PYTHONPATH=$(WORKER)/src $(BIN)/python tests/bench/worker_sizes.py
	$(BIN)/python tests/bench/take_over.py
	$(BIN)/python tests/bench/engine.py window
	$(BIN)/python tests/bench/engine.py sizes 100
	$(BIN)/python tests/bench/engine.py plain
	$(BIN)/python tests/bench/engine.py turn

pictures: $(VENV)/.dev ## Make the pictures of the README anew, of a real rollout (needs tmux and Chromium)
	@$(BIN)/python tools/pictures.py

clean: ## Remove what the other targets made (not a running fleet)
	rm -rf $(VENV) .cache .collections .ansible tests/output

# Each stamp is made anew when the list of dependencies changes.
$(VENV)/.base:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0] + "; name another one with make PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	mkdir -p .collections/ansible_collections/solver .cache/results
	ln -sfn ../../.. .collections/ansible_collections/solver/fleet
	touch $@

$(VENV)/.run: $(VENV)/.base pyproject.toml
	$(BIN)/python -m pip install --quiet --group run
	touch $@

$(VENV)/.dev: $(VENV)/.run pyproject.toml
	$(BIN)/python -m pip install --quiet --group dev
	mkdir -p .cache/results
	touch $@
