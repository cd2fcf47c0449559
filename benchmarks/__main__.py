"""``make bench``: run every benchmark and keep its figures in ``benchmarks/results/``."""

from benchmarks import datasets, scoring, serve, side_by_side

datasets.main()
side_by_side.main()
serve.main()
scoring.main()
