# make demo: the main job on the recording in demo/. make test: the checks. Both set up .venv first, once.
# PYTHON names the interpreter, ARGS is passed on: make test ARGS="-k geometry"
PYTHON ?= python3
ARGS ?=

.PHONY: demo test

demo:
	@$(PYTHON) tools/environment.py demo .venv/bin/python tools/demo.py $(ARGS)

test: export OMP_NUM_THREADS = 1
test:
	@$(PYTHON) tools/environment.py test .venv/bin/ruff check .
	@$(PYTHON) tools/environment.py test .venv/bin/mypy
	@$(PYTHON) tools/environment.py test .venv/bin/python -m pytest $(ARGS)
