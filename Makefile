.PHONY: test quick lint types docs-check tree

test: ## all tests
	python -m pytest

quick: ## the tests that train no real encoder
	python -m pytest -m "not slow"

lint:
	ruff check .
	ruff format --check .

types:
	mypy

docs-check: ## what README and docs say of commands, options and files is so
	python -m pytest -n 0 tests/test_docs.py

tree: ## the folders of the package, and what each imports
	python tests/test_architecture.py
