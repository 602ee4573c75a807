.PHONY: example test

example test:
	python3 dev.py $@
