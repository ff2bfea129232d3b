# make demo: train and evaluate on the demo corpus · make test: lint and every test · make clean
# Tests run in two processes: most of their time is a single thread's, and importing torch.
# make test-torchaudio: the models' tests beside torchaudio and the newest torch, in an environment of its own (5.5 GB)
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-torchaudio clean

demo: $(VENV)/requirements
	$(BIN)/python demo_corpus.py --output_dir demo_corpus
	$(BIN)/python main.py --config config/demo.conf --overwrite

test: $(VENV)/requirements-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist worksteal

TORCHAUDIO_TESTS = tests/test_torchaudio.py tests/test_models.py tests/test_ssl_aasist.py tests/test_published.py

test-torchaudio:
	test -x .venv-torchaudio/bin/python || $(PYTHON) -m venv .venv-torchaudio
	sed "s/^torch==.*/torch==2.14.1/" requirements.txt > .venv-torchaudio/requirements.txt
	.venv-torchaudio/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-torchaudio/requirements.txt \
		-r requirements-torchaudio.txt -r requirements-ssl.txt -r requirements-export.txt pytest hypothesis scikit-learn
	.venv-torchaudio/bin/python -m pytest $(TORCHAUDIO_TESTS)

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
	rm -rf $(VENV) .venv-torchaudio demo_corpus .pytest_cache .ruff_cache .hypothesis .coverage
