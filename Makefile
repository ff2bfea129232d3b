# make demo: train and evaluate on the demo corpus · make test: lint and every test · make clean
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test clean

demo: $(VENV)/requirements
	$(BIN)/python demo_corpus.py --output_dir demo_corpus
	$(BIN)/python main.py --config config/demo.conf --overwrite

test: $(VENV)/requirements-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

# One pip call installs everything: asked for alone, another package could pull a second torch.
$(VENV)/requirements: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/requirements-dev: requirements-dev.txt requirements-app.txt requirements-export.txt requirements-ssl.txt requirements-speaker.txt requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-speaker.txt
	touch $@ $(VENV)/requirements

clean:
	rm -rf $(VENV) demo_corpus .pytest_cache .ruff_cache .hypothesis .coverage
